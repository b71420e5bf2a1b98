/* metrics_page.c - status.html, as it stands. */
#include "metrics.h"

__asm__(".section .rodata\n"
        ".global metrics_page, metrics_page_end\n"
        "metrics_page:\n"
        ".incbin \"cmd/status.html\"\n"
        "metrics_page_end:\n"
        ".byte 0\n"
        ".previous\n");
