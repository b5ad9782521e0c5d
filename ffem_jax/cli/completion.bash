
# Sets COMPREPLY for the word that ends at the cursor. An "=" is part of a word here, whatever the shell breaks words at.
_ffem() {
  local line="${COMP_LINE:0:$COMP_POINT}"
  local cur="${line##* }" before="" command="" previous="" first=1 word
  local options="" positional="" overrides="" takes="" choices="" candidates="" paths=""
  local -a words=()
  COMPREPLY=()
  read -r -a words <<< "${line%"$cur"}"
  if [ "${#words[@]}" -le 1 ]; then
    COMPREPLY=($(compgen -W "$_ffem_commands --help --version" -- "$cur"))
    return
  fi
  command="${words[1]}"
  for word in "${words[@]:2}"; do
    case "$command $word" in
      "serve keys" | "serve people" | "serve keys "* | "serve people "*)
        case "$word" in -*) ;; *) [ "$(wc -w <<< "$command")" -lt 3 ] && command="$command $word" ;; esac ;;
      *) case "$word" in -*) ;; *) first="" ;; esac ;;
    esac
    previous="$word"
  done
  _ffem_look_up "$command" "$previous"
  if [ "$command" = sweep ]; then
    for word in sweeps/*.yaml; do
      [ -e "$word" ] && word="${word##*/}" && positional="$positional ${word%.yaml}"
    done
  fi
  if [ -n "$takes" ]; then
    candidates="$choices"
    [ -z "$choices" ] && paths=1
  elif [ "${cur#-}" != "$cur" ]; then
    candidates="$options"
  elif [ -n "$positional" ] && [ -n "$first" ]; then
    candidates="$positional"
  elif [ -n "$overrides" ]; then
    case "$cur" in
      *=*) candidates="$_ffem_values" ;;
      *) candidates="$_ffem_keys" ;;
    esac
  else
    paths=1
  fi
  COMPREPLY=($(compgen -W "$candidates" -- "$cur"))
  if [ -n "$overrides" ] && [ -z "$takes" ]; then
    case "$cur" in
      *=*)
        # The shell replaces what follows the last "=", a path or a choice.
        [ "${#COMPREPLY[@]}" -eq 0 ] && COMPREPLY=($(compgen -f -P "${cur%%=*}=" -- "${cur#*=}"))
        case "$COMP_WORDBREAKS" in *=*) COMPREPLY=("${COMPREPLY[@]#"${cur%%=*}="}") ;; esac ;;
      -*) ;;
      *) compopt -o nospace 2>/dev/null || true ;;
    esac
  fi
  if [ -n "$paths" ]; then
    compopt -o filenames 2>/dev/null || true
    local IFS=$'\n'
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -F _ffem ffem
