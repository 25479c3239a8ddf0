# fish completion for hbd(8)

function __hbd_in
    contains -- (commandline -opc)[2] $argv
end

function __hbd_names
    set -l words (commandline -opc)
    set -l place (contains -i -- --config $words; or contains -i -- -c $words)
    and set -l config --config $words[(math $place + 1)]
    hbd names $argv[1] $config 2>/dev/null
end

set -l commands run check reload status log notify silence unsilence ack backup key dyndns forget cluster names help
set -l first "not __fish_seen_subcommand_from $commands"

complete -c hbd -f
complete -c hbd -n $first -l help -d 'help'
complete -c hbd -n $first -l version -d 'the version'
complete -c hbd -n $first -a run -d 'the daemon, in the foreground'
complete -c hbd -n $first -a check -d 'say what is wrong with the configuration'
complete -c hbd -n $first -a reload -d 'read the configuration again'
complete -c hbd -n $first -a names -d 'the hosts or channels of the configuration'
complete -c hbd -n $first -a help -d 'options and examples of a command'
complete -c hbd -n $first -a notify -d 'send a message now'
complete -c hbd -n $first -a status -d 'how hosts, alerts and channels are'
complete -c hbd -n $first -a log -d 'what was sent to whom'
complete -c hbd -n $first -a backup -d 'how backup plans and their repositories are'
complete -c hbd -n $first -a key -d 'make a key for a host'
complete -c hbd -n $first -a forget -d 'give up a connection, or a host'
complete -c hbd -n $first -a cluster -d 'hand over, or move the state'
complete -c hbd -n $first -a dyndns -d 'the names of hosts on changing addresses'
complete -c hbd -n $first -a silence -d 'hold messages back for a time'
complete -c hbd -n $first -a unsilence -d 'end silences'
complete -c hbd -n $first -a ack -d 'stop reminders of what is wrong'
complete -c hbd -n "not $first" -s c -l config -r -F -d 'the configuration'
complete -c hbd -n '__hbd_in check' -l strict -d 'warnings count as errors'
complete -c hbd -n '__hbd_in check reload notify status log backup key dyndns silence unsilence ack' -l json -d 'for programs'
complete -c hbd -n '__hbd_in notify' -l host -x -a '(__hbd_names hosts)' -d 'the channels of a host'
complete -c hbd -n '__hbd_in notify' -l channel -x -a '(__hbd_names channels)' -d 'this channel'
complete -c hbd -n '__hbd_in notify' -l default -d 'the default channels'
complete -c hbd -n '__hbd_in notify' -l level -x -a 'ok info warning critical' -d 'how much it matters'
complete -c hbd -n '__hbd_in reload status log backup key forget cluster dyndns silence unsilence ack' -l url -x -d 'where the daemon is'
complete -c hbd -n '__hbd_in reload status log backup key forget cluster dyndns silence unsilence ack' -l ca-file -r -F -d 'who signed its certificate'
complete -c hbd -n '__hbd_in status' -l alive -d 'whether the daemon itself answers'
complete -c hbd -n '__hbd_in status' -l all -d 'those that are well, too'
complete -c hbd -n '__hbd_in status' -l watch -d 'draws it anew every two seconds'
complete -c hbd -n '__hbd_in status' -l color -x -a 'auto always never' -d 'colours'
complete -c hbd -n '__hbd_in key' -l common -d 'the key of all hosts'
complete -c hbd -n '__hbd_in key' -l write -r -F -d 'into this file'
complete -c hbd -n '__hbd_in key' -l status -d 'who still signs with a previous key'
complete -c hbd -n '__hbd_in log' -s n -l limit -x -d 'so many'
complete -c hbd -n '__hbd_in log' -s f -l follow -d 'goes on as they come'
complete -c hbd -n '__hbd_in log silence key dyndns' -l utc -d 'times in UTC'
complete -c hbd -n '__hbd_in names' -a 'hosts channels'
complete -c hbd -n '__hbd_in cluster' -a 'step-down forget import export'
complete -c hbd -n '__hbd_in help' -a 'run check reload status log notify silence unsilence ack backup key dyndns forget cluster names'
complete -c hbd -n '__hbd_in check' -F
complete -c hbd -n '__hbd_in status log silence unsilence ack key dyndns forget' -a '(__hbd_names hosts)' -d host
complete -c hbd -n '__hbd_in log' -l events -d 'what happened'
complete -c hbd -n '__hbd_in backup' -l all -d 'every plan'
complete -c hbd -n '__hbd_in backup' -l forget -d 'end a trouble until it changes'
complete -c hbd -n '__hbd_in dyndns' -l dry-run -d 'show what would be sent'
complete -c hbd -n '__hbd_in dyndns' -l address -x -d 'as if the host had it'
complete -c hbd -n '__hbd_in silence unsilence ack' -l all -d 'all hosts and plans'
complete -c hbd -n '__hbd_in silence ack' -l comment -x -d 'why'
complete -c hbd -n '__hbd_in silence ack' -l by -x -d 'who'
complete -c hbd -n '__hbd_in silence' -l unless -x -a 'info warning critical' -d 'what is told all the same'
complete -c hbd -n '__hbd_in ack' -l for -x -d 'for how long'
complete -c hbd -n '__hbd_in ack' -l undo -d 'take it back'
