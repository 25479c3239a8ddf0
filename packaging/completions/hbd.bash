# bash completion for hbd(8)

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
        --host | --channel | --url | --limit | --address | --comment | --by | --for)
            return
            ;;
    esac
    if ((cword == 1)); then
        COMPREPLY=($(compgen -W 'run check notify status log backup key forget dyndns silence unsilence ack --help --version' -- "$cur"))
        return
    fi
    local options=--help
    case ${words[1]} in
        run) options+=' --config' ;;
        check) options+=' --config --strict --json' ;;
        notify) options+=' --config --host --channel --default --level --json' ;;
        status) options+=' --config --url --ca-file --alive --all --json --color' ;;
        log) options+=' --config --url --ca-file --events --limit --json' ;;
        backup) options+=' --config --url --ca-file --all --json --forget' ;;
        key) options+=' --config --common --write --status --url --ca-file' ;;
        forget) options+=' --config --url --ca-file' ;;
        silence) options+=' --config --url --ca-file --all --comment --unless --by --json' ;;
        unsilence) options+=' --config --url --ca-file --all --json' ;;
        ack) options+=' --config --url --ca-file --all --comment --for --by --undo --json' ;;
        dyndns) options+=' --config --url --ca-file --json --dry-run --address' ;;
    esac
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
} &&
    complete -F _hbd hbd
