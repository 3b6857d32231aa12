#compdef sdd
# eval "$(sdd completion zsh)"
_sdd() {
  local -a found open
  found=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  open=(${(M)found:#*(/|=)})
  found=(${found:#*(/|=)})
  (( ${#open} )) && compadd -Q -S '' -- "${open[@]}"
  (( ${#found} )) && compadd -Q -- "${found[@]}"
}
compdef _sdd sdd
