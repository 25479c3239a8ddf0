#compdef hbc
# zsh completion for hbc(8)

_hbc() {
    local curcontext=$curcontext state line
    local -a config=('(-c --config)'{-c,--config}'[the configuration]:file:_files')
    local -a tell=(
        '*--server[where hbd listens]:host:_hosts' '--host[the host that it is about]:host:'
        '--connection[the path to it]:connection:' '--key-file[signs with this key]:file:_files'
        '*--metric[a number]:path=value:' '--interval[when the next beat will come]:duration:'
        '--wait[waits for an answer]:duration:'
    )
    local -a commands=(
        'run:beat until it is stopped'
        'check:say what is wrong with the configuration'
        'send:send one datagram'
        'exec:run a job and tell how it went'
        'silence:ask hbd not to tell of this host for a time'
        'help:options and examples of a command'
        'metrics:print what this machine says about itself'
    )
    _arguments -C '(- *)--help[help]' '(- *)--version[the version]' '1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $words[1] in
                run)
                    _arguments $config '*--server[where hbd listens]:host:_hosts' \
                        '--host[the name of this host]:host:' '--interval[between beats]:duration:' \
                        '--key-file[signs with this key]:file:_files'
                    ;;
                check)
                    _arguments $config '--strict[warnings count as errors]' '--json[for programs]' \
                        '1:file:_files'
                    ;;
                help) _describe command commands ;;
                send)
                    _arguments $tell '--event[what is told]:event:(beat boot shutdown message)' \
                        '--message[the text of a message]:text:' '--boot-id[the id of this boot]:id:(auto)' \
                        '--uptime[how long this machine has been running]'
                    ;;
                exec) _arguments $tell '--name[what the job is called]:name:' '*::command:_normal' ;;
                silence)
                    _arguments '*--server[where hbd listens]:host:_hosts' \
                        '--host[the host that it is about]:host:' '--connection[the path to it]:connection:' \
                        '--key-file[signs with this key]:file:_files' '--wait[waits for an answer]:duration:' \
                        '--comment[why]:text:' '1:duration:(end)'
                    ;;
                metrics) _arguments '--metrics-dir[programs that are run, too]:directory:_files -/' ;;
            esac
            ;;
    esac
}

_hbc "$@"
