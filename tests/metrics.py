#!/usr/bin/python3 -SE
"""metrics.py PORT|unix:PATH COMMAND...: looks at --metrics as strictly as its readers do.

  text                 fetches /metrics, checks the exposition format 0.0.4 and Prometheus' rules for names, prints its samples, sorted
  get PATH             prints the body
  raw BYTES            sends them (with \\r \\n \\0 escapes), prints the status and headers, and whether the connection was closed after it
  watch FILE           fetches /metrics again and again until FILE is there: no counter may ever go down
"""
import os
import re
import socket
import sys

NAME = re.compile(r'[a-zA-Z_][a-zA-Z0-9_]*\Z')
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)\Z')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"(?:,|\Z)')


def connect(where):
    if where.startswith('unix:'):
        s = socket.socket(socket.AF_UNIX)
        s.connect(where[len('unix:'):])
    else:
        s = socket.create_connection(('127.0.0.1', int(where)))
    s.settimeout(60)
    return s


def fetch(where, path):
    with connect(where) as s:
        s.sendall(f'GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode())
        answer = b''.join(iter(lambda: s.recv(65536), b''))
    head, body = answer.split(b'\r\n\r\n', 1)
    lines = head.decode().split('\r\n')
    fields = {name.lower(): value for name, value in (line.split(': ', 1) for line in lines[1:])}
    assert lines[0] == 'HTTP/1.1 200 OK', lines[0]
    assert len(body) == int(fields['content-length']), (len(body), fields)
    return fields, body.decode()


class Family:
    def __init__(self, name):
        self.name, self.help, self.type, self.samples = name, None, None, {}

    def takes(self, name):
        suffixes = ('_bucket', '_sum', '_count') if self.type == 'histogram' else ('',)
        return any(name == self.name + suffix for suffix in suffixes)

    def check(self):
        assert self.help and self.type in ('counter', 'gauge', 'histogram'), self.name
        assert self.name.startswith('hark_') and NAME.match(self.name), self.name
        assert (self.type == 'counter') == self.name.endswith('_total'), f'{self.name} is a {self.type}'
        assert not re.search(r'milli|micro|kilo|minutes|_ms|_kib', self.name), f'{self.name}: base units'
        assert self.samples, f'{self.name} has no sample'
        if self.type == 'histogram':
            self.check_histogram()

    def check_histogram(self):
        buckets = [(float(dict(labels)['le']), value) for (name, labels), value in self.samples.items() if name.endswith('_bucket')]
        assert buckets == sorted(buckets) and [v for _, v in buckets] == sorted(v for _, v in buckets), buckets
        assert buckets[-1][0] == float('inf'), 'the last bucket is +Inf'
        assert self.samples[self.name + '_count', ()] == buckets[-1][1], 'the count is the last bucket'
        assert self.samples[self.name + '_sum', ()] >= 0


def parse(text):
    """The families by name; each begins with HELP and TYPE, and all of its samples stand together."""
    assert text.endswith('\n'), 'the last line ends, too'
    families, family = {}, None
    for line in text[:-1].split('\n'):
        if line.startswith('# HELP '):
            name, words = line[len('# HELP '):].split(' ', 1)
            assert name not in families, f'{name} twice'
            family = families[name] = Family(name)
            family.help = words
        elif line.startswith('# TYPE '):
            name, kind = line[len('# TYPE '):].split(' ')
            assert name == family.name and family.type is None and not family.samples, line
            family.type = kind
        else:
            name, labels, value = SAMPLE.match(line).groups()
            key = name, tuple(LABEL.findall(labels or ''))
            assert family.takes(name), f'{line} stands in {family.name}'
            assert key not in family.samples, f'{key} twice'
            family.samples[key] = float(value)
    for family in families.values():
        family.check()
    return families


def scrape(where):
    fields, text = fetch(where, '/metrics')
    assert fields['content-type'] == 'text/plain; version=0.0.4; charset=utf-8', fields
    return parse(text)


def show(families):
    for family in families.values():
        for (name, labels), value in sorted(family.samples.items()):
            inside = ','.join(f'{key}="{text}"' for key, text in labels)
            print(f'{name}{{{inside}}} {value:.15g}' if labels else f'{name} {value:.15g}')


def never_goes_down(where, until):
    """Gauges are left out; sums and buckets are counters as well."""
    before, looks = {}, 0
    while True:
        last = os.path.exists(until)
        now = {key: value for f in scrape(where).values() if f.type != 'gauge' for key, value in f.samples.items()}
        for key, value in before.items():
            assert now[key] >= value, f'{key} went from {value} down to {now[key]}'
        before, looks = now, looks + 1
        if last:
            break
    print(f'{looks} looks')


def raw(where, request):
    with connect(where) as s:
        s.sendall(request.encode().decode('unicode_escape').encode('latin-1'))
        answer = b''
        while b'\r\n\r\n' not in answer:
            more = s.recv(65536)
            if not more:
                break
            answer += more
        head, _, body = answer.partition(b'\r\n\r\n')
        print(head.decode().replace('\r', ''))
        length = re.search(rb'(?i)content-length: (\d+)', head)
        s.settimeout(0.3)
        try:
            while True:
                more = s.recv(65536)
                if not more:
                    break
                body += more
            print('closed')
        except TimeoutError:
            print('open')
        print(f'body {len(body)} of {int(length[1]) if length else 0}')


def main(where, command, *words):
    if command == 'text':
        show(scrape(where))
    elif command == 'get':
        print(fetch(where, words[0])[1], end='')
    elif command == 'watch':
        never_goes_down(where, words[0])
    elif command == 'raw':
        raw(where, words[0])


main(*sys.argv[1:])
