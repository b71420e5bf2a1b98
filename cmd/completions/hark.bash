# bash completion for hark: made from cmd/options.def by `make man`, do not edit
_hark() {
    local options='--port --bind --ipv4 --ipv6 --unix --unix-mode --backlog --reuse-port --interface --ready-fd --processes --max-restarts --once --max-accepts --exit-idle --drain-timeout --handler --balance --connect-timeout --send-proxy --recv-only --send-only --exec-io --stderr --chdir --setenv --clear-env --kill-after --warm --forward-ssl --forward-ssl-ca --forward-ssl-name --forward-ssl-insecure --max-buffer-size --idle-timeout --half-close-timeout --max-lifetime --max-connections --max-per-ip --max-rate --keepalive --allow --deny --proxy-protocol --user --chroot --sandbox --metrics --ssl-cert --ssl-key --ssl-key-pass-file --ssl-self-signed --ssl-save-cert --ssl-ca --ssl-verify --ssl-crl --ssl-verify-depth --ssl-alpn --ssl-min-version --ssl-max-version --ssl-ciphers --ssl-ciphersuites --ssl-groups --ssl-strict-sni --ssl-ticket-keys --ssl-ocsp --ssl-keylog --handshake-timeout --max-handshakes --verbose --quiet --log-format --log-to --check --help --version'
    local programs='exec' # handlers whose arguments are a command
    local -A values=( # of the options that take one
        [-p]=''
        [--port]=''
        [-b]=''
        [--bind]=''
        [-U]='FILE'
        [--unix]='FILE'
        [--unix-mode]=''
        [--backlog]=''
        [--interface]=''
        [--ready-fd]=''
        [--processes]=''
        [--max-restarts]=''
        [--max-accepts]=''
        [--exit-idle]=''
        [--drain-timeout]=''
        [-H]='echo discard exec shell forward stdio'
        [--handler]='echo discard exec shell forward stdio'
        [--balance]='round-robin least source first'
        [--connect-timeout]=''
        [--send-proxy]=''
        [--exec-io]='auto socket pipe'
        [--stderr]='log client null'
        [--chdir]=''
        [--setenv]=''
        [--kill-after]=''
        [--warm]=''
        [--forward-ssl-ca]='FILE'
        [--forward-ssl-name]=''
        [--max-buffer-size]=''
        [--idle-timeout]=''
        [--half-close-timeout]=''
        [--max-lifetime]=''
        [--max-connections]=''
        [--max-per-ip]=''
        [--max-rate]=''
        [--keepalive]=''
        [--allow]=''
        [--deny]=''
        [--proxy-protocol]=''
        [--user]=''
        [--chroot]=''
        [--metrics]=''
        [--ssl-cert]='FILE'
        [--ssl-key]='FILE'
        [--ssl-key-pass-file]='FILE'
        [--ssl-save-cert]='FILE'
        [--ssl-ca]='FILE'
        [--ssl-verify]='none optional require'
        [--ssl-crl]='FILE'
        [--ssl-verify-depth]=''
        [--ssl-alpn]=''
        [--ssl-min-version]='1.2 1.3'
        [--ssl-max-version]='1.2 1.3'
        [--ssl-ciphers]=''
        [--ssl-ciphersuites]=''
        [--ssl-groups]=''
        [--ssl-ticket-keys]='FILE'
        [--ssl-ocsp]='FILE'
        [--ssl-keylog]='FILE'
        [--handshake-timeout]=''
        [--max-handshakes]=''
        [--log-format]='text json'
        [--log-to]=''
    )
    local cur=${COMP_WORDS[COMP_CWORD]} handler='' option='' ended='' i word
    COMPREPLY=()
    # What stands before: an option that waits for its value, or the end of the options?
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == '=' ]]; then
            continue # bash makes three words of --name=value
        elif [[ $option ]]; then
            [[ $option == -H || $option == --handler ]] && handler=$word
            option=
        elif [[ $word == -- ]]; then
            ended=1 && ((++i)) && break
        elif [[ $word != -?* ]]; then
            ended=1 && break
        elif [[ ${values[$word]+known} ]]; then
            option=$word
        fi
    done
    [[ $cur == '=' ]] && cur=
    if [[ $option && ${values[$option]} == FILE ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    elif [[ $option ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${values[$option]}" -- "$cur")
    elif [[ ! $ended && ($cur == -* || ! $handler =~ ^($programs)$) ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif [[ ! $handler =~ ^($programs)$ ]]; then
        return
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$i" # of bash-completion: as if the program stood alone
    elif ((i == COMP_CWORD)); then
        mapfile -t COMPREPLY < <(compgen -c -- "$cur")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -F _hark hark
