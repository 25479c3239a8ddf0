# bash completion for hbc(8)

_hbc()
{
    local cur prev words cword
    _init_completion || return
    case $prev in
        --config | -c | --key-file)
            _filedir
            return
            ;;
        --event)
            COMPREPLY=($(compgen -W 'beat boot shutdown message' -- "$cur"))
            return
            ;;
        --boot-id)
            COMPREPLY=($(compgen -W 'auto' -- "$cur"))
            return
            ;;
        --server)
            _known_hosts_real -- "$cur"
            return
            ;;
        --metrics-dir)
            _filedir -d
            return
            ;;
        --host | --connection | --message | --comment | --metric | --interval | --wait | --name)
            return
            ;;
    esac
    if ((cword == 1)); then
        COMPREPLY=($(compgen -W 'run check send exec silence metrics help --help --version' -- "$cur"))
        return
    fi
    local options=--help place
    if [[ ${words[1]} == exec ]]; then
        for ((place = 2; place < cword; place++)); do
            if [[ ${words[place]} == -- ]]; then
                _command_offset $((place + 1))
                return
            fi
        done
    fi
    case ${words[1]} in
        run) options+=' --config --server --host --interval --key-file' ;;
        send)
            options+=' --server --host --connection --event --message --metric --interval'
            options+=' --boot-id --uptime --key-file --wait'
            ;;
        exec) options+=' --server --host --connection --metric --interval --key-file --wait --name --' ;;
        check)
            options+=' --config --strict --json'
            [[ $cur == -* ]] || _filedir
            COMPREPLY+=($(compgen -W "$options" -- "$cur"))
            return
            ;;
        help) options='run check send exec silence metrics' ;;
        silence) options+=' end --comment --wait --server --host --connection --key-file' ;;
        metrics) options+=' --metrics-dir' ;;
    esac
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
} &&
    complete -F _hbc hbc
