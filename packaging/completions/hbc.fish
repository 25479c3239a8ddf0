# fish completion for hbc(8)

function __hbc_in
    contains -- (commandline -opc)[2] $argv
end

set -l commands run check send exec silence metrics help
set -l first "not __fish_seen_subcommand_from $commands"

complete -c hbc -f
complete -c hbc -n $first -l help -d 'help'
complete -c hbc -n $first -l version -d 'the version'
complete -c hbc -n $first -a run -d 'beat until it is stopped'
complete -c hbc -n $first -a check -d 'say what is wrong with the configuration'
complete -c hbc -n $first -a send -d 'send one datagram'
complete -c hbc -n $first -a exec -d 'run a job and tell how it went'
complete -c hbc -n $first -a silence -d 'ask hbd not to tell of this host for a time'
complete -c hbc -n $first -a help -d 'options and examples of a command'
complete -c hbc -n $first -a metrics -d 'print what this machine says about itself'
complete -c hbc -n '__hbc_in run check' -s c -l config -r -F -d 'the configuration'
complete -c hbc -n '__hbc_in check' -l strict -d 'warnings count as errors'
complete -c hbc -n '__hbc_in check' -l json -d 'for programs'
complete -c hbc -n '__hbc_in check' -F
complete -c hbc -n '__hbc_in help' -a 'run check send exec silence metrics'
complete -c hbc -n '__hbc_in run send exec silence' -l server -x -a '(__fish_print_hostnames)' -d 'where hbd listens'
complete -c hbc -n '__hbc_in run send exec silence' -l host -x -d 'the host that it is about'
complete -c hbc -n '__hbc_in run send exec' -l interval -x -d 'between beats'
complete -c hbc -n '__hbc_in run send exec silence' -l key-file -r -F -d 'signs with this key'
complete -c hbc -n '__hbc_in send exec silence' -l connection -x -d 'the path to it'
complete -c hbc -n '__hbc_in send exec' -l metric -x -d 'a number, PATH=VALUE'
complete -c hbc -n '__hbc_in send exec silence' -l wait -x -d 'waits for an answer'
complete -c hbc -n '__hbc_in send' -l event -x -a 'beat boot shutdown message' -d 'what is told'
complete -c hbc -n '__hbc_in send' -l message -x -d 'the text of a message'
complete -c hbc -n '__hbc_in send' -l boot-id -x -a auto -d 'the id of this boot'
complete -c hbc -n '__hbc_in send' -l uptime -d 'how long this machine has been running'
complete -c hbc -n '__hbc_in silence' -a end -d 'ends it'
complete -c hbc -n '__hbc_in silence' -l comment -x -d 'why'
complete -c hbc -n '__hbc_in exec' -l name -x -d 'what the job is called'
complete -c hbc -n '__hbc_in exec' -x -a '(__fish_complete_subcommand --fcs-skip=2)'
complete -c hbc -n '__hbc_in metrics' -l metrics-dir -r -a '(__fish_complete_directories)' -d 'programs that are run, too'
