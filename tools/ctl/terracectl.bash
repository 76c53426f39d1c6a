# Completion of terracectl for bash. Verbs and options are read from --help, so they are those of the installed version.

_terracectl() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local verbs verb='' word
  case $previous in
    --runtime | --data) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
    --file | --out | --record) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --rule) mapfile -t COMPREPLY < <(compgen -W 'prefix window state independent' -- "$current"); return ;;
    --priority) mapfile -t COMPREPLY < <(compgen -W 'low normal high' -- "$current"); return ;;
    --wait-for)
      mapfile -t COMPREPLY < <(compgen -W 'source-free dram local-written local-synced pool' -- "$current")
      return
      ;;
    --sharding) mapfile -t COMPREPLY < <(compgen -W 'sharded canonical replicated' -- "$current"); return ;;
  esac
  verbs=$(terracectl --help 2>/dev/null | sed -n '/^Subcommands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ -n $word && " ${verbs//$'\n'/ } " == *" $word "* ]]; then
      verb=$word
      break
    fi
  done
  if [[ -z $verb && $current != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$current")
  elif [[ $current == -* ]]; then
    # shellcheck disable=SC2086 # no verb, no argument
    mapfile -t COMPREPLY < <(compgen -W \
      "$({ terracectl $verb --help; terracectl --help; } 2>/dev/null | grep -oE -- '--[a-z-]+' | sort -u)" -- "$current")
  fi
}
complete -F _terracectl terracectl
