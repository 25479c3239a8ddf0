# bash completion for hbd(8)

# The hosts or channels of the configuration that is named on the line.
_hbd_names()
{
    local place config=()
    for ((place = 2; place < cword; place++)); do
        case ${words[place]} in
            --config | -c) config=(--config "${words[place + 1]}") ;;
        esac
    done
    COMPREPLY+=($(compgen -W "$(hbd names "$1" "${config[@]}" 2> /dev/null)" -- "$cur"))
}

_hbd()
{
    local cur prev words cword
    _init_completion || return
    case $prev in
        --config | -c | --ca-file | --write)
            _filedir
            return
            ;;
        --level)
            COMPREPLY=($(compgen -W 'ok info warning critical' -- "$cur"))
            return
            ;;
        --unless)
            COMPREPLY=($(compgen -W 'info warning critical' -- "$cur"))
            return
            ;;
        --color)
            COMPREPLY=($(compgen -W 'auto always never' -- "$cur"))
            return
            ;;
        --host)
            _hbd_names hosts
            return
            ;;
        --channel)
            _hbd_names channels
            return
            ;;
        --url | --limit | -n | --address | --comment | --by | --for)
            return
            ;;
    esac
    if ((cword == 1)); then
        COMPREPLY=($(compgen -W 'run check reload status log notify silence unsilence ack backup key dyndns forget cluster names help --help --version' -- "$cur"))
        return
    fi
    local options=--help
    case ${words[1]} in
        run) options+=' --config' ;;
        reload) options+=' --config --url --ca-file --json' ;;
        names) options+=' hosts channels --config' ;;
        help) options='run check reload status log notify silence unsilence ack backup key dyndns forget cluster names' ;;
        check) options+=' --config --strict --json' ;;
        notify) options+=' --config --host --channel --default --level --json' ;;
        status) options+=' --config --url --ca-file --alive --all --watch --json --color' ;;
        log) options+=' --config --url --ca-file --events --follow --limit --utc --json' ;;
        backup) options+=' --config --url --ca-file --all --json --forget' ;;
        key) options+=' --config --common --write --status --url --ca-file --utc --json' ;;
        forget) options+=' --config --url --ca-file' ;;
        cluster) options+=' --config --url --ca-file' ;;
        silence) options+=' --config --url --ca-file --all --comment --unless --by --utc --json' ;;
        unsilence) options+=' --config --url --ca-file --all --json' ;;
        ack) options+=' --config --url --ca-file --all --comment --for --by --undo --json' ;;
        dyndns) options+=' --config --url --ca-file --utc --json --dry-run --address' ;;
    esac
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
    [[ $cur == -* ]] && return
    case ${words[1]} in
        check) _filedir ;;
        status | log | silence | unsilence | ack | key | dyndns | forget) _hbd_names hosts ;;
    esac
} &&
    complete -F _hbd hbd
