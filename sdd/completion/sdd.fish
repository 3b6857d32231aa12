# sdd completion fish > ~/.config/fish/completions/sdd.fish
function __sdd_words
    set -l words (commandline -opc) (commandline -ct)
    $words[1] completion words $words[2..-1] 2>/dev/null
end
complete -c sdd -f -a '(__sdd_words)'
