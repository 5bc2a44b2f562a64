#!/usr/bin/env bash
# Rejects wording that CONTRIBUTING.md ("Language") replaces, in sources (which contain the --help texts), docs and the
# OpenAPI document, and spelling mistakes. Justified lines are in scripts/language-allowed.txt as FILE:TEXT, unindented.
set -euo pipefail
cd "$(dirname "$0")/.."

# Rejected everywhere.
anywhere='\b(whoever|whomever|nobody|somebody|anybody|those who|anew|by hand|so many|at hand|passed over|in vain|of then'
anywhere+='|(is|are|was|be) told|news of|evaluatee|thing that)\b'
# Rejected in comments and prose, where these words are metaphors or inversions.
prose='\b(void|bell|stands? (for|in|there|twice|above|below)|goes on|born|gone|hears?|heard|strangers?'
prose+='|(?<!there )(is|are|was) no (?!longer)[a-z]+|everybody|falls? due|fell due|wherever)\b'

lines() { git grep --untracked -nPI "$@" ':!scripts/check-language.sh' ':!scripts/language-allowed.txt' || true; }
rejected="$(
    {
        lines -i "$anywhere" -- '*.rs' '*.ts' '*.tsx' '*.md' '*.sh' '*.py' '*.toml' justfile docs/openapi.json
        lines -i "^\s*(//|/\*|\*|#(?![A-Za-z!])|--).*$prose" -- '*.rs' '*.ts' '*.tsx' '*.sh' '*.py' '*.toml' justfile
        lines -i "$prose" -- '*.md'
        # Error messages start in lower case and do not end with a full stop.
        lines '#\[error\("([A-Z][a-z]|[^"]*\."\))' -- '*.rs'
        # Prose wraps at 120 characters. Table rows cannot wrap.
        lines '^[^|].{120,}$' -- '*.md'
    } | sort -u | awk -F: 'FILENAME != "-" { allowed[$0] = 1; next }
        { text = substr($0, length($1) + length($2) + 3); sub(/^[ \t]+/, "", text); if (!($1 ":" text in allowed)) print }
    ' scripts/language-allowed.txt -
)"
if [ -n "$rejected" ]; then
    printf '%s\nlanguage: use the terms of CONTRIBUTING.md, "Language", and wrap prose at 120 characters\n' "$rejected" >&2
    exit 1
fi
"$(scripts/ensure-typos.sh)"
echo 'language: ok'
