#compdef hbd
# zsh completion for hbd(8)

_hbd() {
    local curcontext=$curcontext state line
    local config='(-c --config)'{-c,--config}'[the configuration]:file:_files'
    local -a daemon=(
        $config '--url[where the daemon is]:url:_urls'
        '--ca-file[who signed its certificate]:file:_files' '--json[for programs]'
    )
    local -a commands=(
        'run:the daemon, in the foreground'
        'check:say what is wrong with the configuration'
        'notify:send a message now'
        'status:how hosts, alerts and channels are'
        'log:what was sent to whom'
        'backup:how backup plans and their repositories are'
        'key:make a key for a host'
        'forget:give up a connection, or a host'
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
                check) _arguments $config '--strict[warnings count as errors]' '--json[for programs]' ;;
                notify)
                    _arguments $config '--host[the channels of a host]:host:' \
                        '*--channel[this channel]:channel:' '--default[the default channels]' \
                        '--level[how much it matters]:level:(ok info warning critical)' \
                        '--json[for programs]' '1:message:'
                    ;;
                status)
                    _arguments $daemon '--alive[whether the daemon itself answers]' '--all[those that are well, too]' \
                        '--color[colours]:when:(auto always never)' '1:host:'
                    ;;
                log)
                    _arguments $daemon '--events[what happened]' '--limit[so many]:number:' '1:host:'
                    ;;
                backup)
                    _arguments $daemon '--all[every plan]' \
                        '--forget[end a trouble until it changes]' '1:plan:'
                    ;;
                key)
                    _arguments $daemon '--common[the key of all hosts]' '--write[into this file]:file:_files' \
                        '--status[who still signs with a previous key]' '1:host:'
                    ;;
                forget) _arguments $daemon '1:host or host/connection:' ;;
                silence)
                    _arguments $daemon '--all[all hosts and plans]' '--comment[why]:text:' '--by[who]:name:' \
                        '--unless[what is told all the same]:level:(info warning critical)' \
                        '1:scope:' '2:duration:'
                    ;;
                unsilence) _arguments $daemon '--all[all silences]' '1:id or scope:' ;;
                ack)
                    _arguments $daemon '--all[all hosts and plans]' '--comment[why]:text:' '--by[who]:name:' \
                        '--for[for how long]:duration:' '--undo[take it back]' '1:scope:'
                    ;;
                dyndns)
                    _arguments $daemon '--dry-run[show what would be sent]' \
                        '*--address[as if the host had it]:address:' '1:host:'
                    ;;
            esac
            ;;
    esac
}

_hbd "$@"
