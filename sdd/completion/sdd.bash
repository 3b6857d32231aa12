# eval "$(sdd completion bash)"
_sdd() {
  local line="${COMP_LINE:0:COMP_POINT}" words=() word prefix candidate
  read -ra words <<<"$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  word="${words[-1]}"
  # bash takes = and : for ends of words, and wants what follows the last of them.
  prefix="${word%"${word##*[=:]}"}"
  [[ "$COMP_WORDBREAKS" == *=* ]] || prefix=""
  COMPREPLY=()
  while IFS= read -r candidate; do
    COMPREPLY+=("${candidate#"$prefix"}")
  done < <("${words[0]/#\~/$HOME}" completion words "${words[@]:1}" 2>/dev/null)
  case "${COMPREPLY[0]-}" in
    */ | *=) [[ ${#COMPREPLY[@]} -eq 1 ]] && compopt -o nospace 2>/dev/null ;;
  esac
}
complete -F _sdd sdd
