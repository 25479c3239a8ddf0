#compdef hbd
# zsh completion for hbd(8)

_hbd_names() {
    local -a config names
    local place=${words[(I)(--config|-c)]}
    ((place > 0)) && config=(--config ${words[place + 1]})
    # What _arguments adds stands before the word of ours.
    names=(${(f)"$(hbd names ${@[-1]} $config 2> /dev/null)"})
    compadd "${@[1,-2]}" -a names
}

_hbd() {
    local curcontext=$curcontext state line
    local -a config=('(-c --config)'{-c,--config}'[the configuration]:file:_files')
    local -a daemon=(
        $config '--url[where the daemon is]:url:_urls'
        '--ca-file[who signed its certificate]:file:_files' '--json[for programs]'
    )
    local -a commands=(
        'run:the daemon, in the foreground'
        'check:say what is wrong with the configuration'
        'reload:read the configuration again'
        'names:the hosts or channels of the configuration'
        'help:options and examples of a command'
        'notify:send a message now'
        'status:how hosts, alerts and channels are'
        'log:what was sent to whom'
        'backup:how backup plans and their repositories are'
        'key:make a key for a host'
        'forget:give up a connection, or a host'
        'cluster:hand over, or move the state'
        'silence:hold messages back for a time'
        'unsilence:end silences'
        'ack:stop reminders of what is wrong'
        'dyndns:the names of hosts on changing addresses'
    )
    _arguments -C '(- *)--help[help]' '(- *)--version[the version]' '1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $words[1] in
                run) _arguments $config ;;
                check)
                    _arguments $config '--strict[warnings count as errors]' '--json[for programs]' \
                        '1:file:_files'
                    ;;
                reload) _arguments $daemon ;;
                names) _arguments $config '1:what:(hosts channels)' ;;
                help) _describe command commands ;;
                notify)
                    _arguments $config '--host[the channels of a host]:host:_hbd_names hosts' \
                        '*--channel[this channel]:channel:_hbd_names channels' '--default[the default channels]' \
                        '--level[how much it matters]:level:(ok info warning critical)' \
                        '--json[for programs]' '1:message:'
                    ;;
                status)
                    _arguments $daemon '--alive[whether the daemon itself answers]' \
                        '--all[those that are well, too]' '--watch[draws it anew]' \
                        '--color[colours]:when:(auto always never)' '1:host:_hbd_names hosts'
                    ;;
                log)
                    _arguments $daemon '--events[what happened]' '(-f --follow)'{-f,--follow}'[goes on]' \
                        '(-n --limit)'{-n,--limit}'[so many]:number:' '--utc[times in UTC]' \
                        '1:host:_hbd_names hosts'
                    ;;
                backup)
                    _arguments $daemon '--all[every plan]' \
                        '--forget[end a trouble until it changes]' '1:plan:'
                    ;;
                key)
                    _arguments $daemon '--common[the key of all hosts]' '--write[into this file]:file:_files' \
                        '--status[who still signs with a previous key]' '--utc[times in UTC]' \
                        '1:host:_hbd_names hosts'
                    ;;
                forget) _arguments $daemon '1:host or host/connection:_hbd_names hosts' ;;
                cluster) _arguments $daemon '1:what:(step-down forget import export)' ;;
                silence)
                    _arguments $daemon '--all[all hosts and plans]' '--comment[why]:text:' '--by[who]:name:' \
                        '--unless[what is told all the same]:level:(info warning critical)' \
                        '--utc[times in UTC]' '1:scope:_hbd_names hosts' '2:duration:'
                    ;;
                unsilence) _arguments $daemon '--all[all silences]' '1:id or scope:_hbd_names hosts' ;;
                ack)
                    _arguments $daemon '--all[all hosts and plans]' '--comment[why]:text:' '--by[who]:name:' \
                        '--for[for how long]:duration:' '--undo[take it back]' '1:scope:_hbd_names hosts'
                    ;;
                dyndns)
                    _arguments $daemon '--dry-run[show what would be sent]' \
                        '*--address[as if the host had it]:address:' '--utc[times in UTC]' \
                        '1:host:_hbd_names hosts'
                    ;;
            esac
            ;;
    esac
}

_hbd "$@"
