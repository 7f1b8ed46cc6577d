# Sourced by the scripts beside it, which set scripts_dir. Makes .venv at the repository root and installs what is
# pinned; does nothing, fast, when that is done already. Leaves ROOT and PYTHON set.
# shellcheck shell=sh disable=SC2154 # scripts_dir comes from the script that sources this

ROOT=$(CDPATH='' cd -- "$scripts_dir/.." && pwd -P)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
STAMP=$VENV/.installed

say() {
    printf 'tickhub: %s\n' "$*" >&2
}

# Name the first Python that is new enough and can make environments (Debian's comes without ensurepip).
find_python() {
    for candidate in python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    say "Python 3.11 or newer with the modules venv and ensurepip is needed" \
        "(Debian, Ubuntu: apt install python3-venv; macOS: brew install python@3.13)"
    return 1
}

# What an environment must have been made from: the interpreter's version and every pinned line.
wanted() {
    "$PYTHON" -I -S -c 'import sys; print(sys.version)' && cat "$ROOT/requirements.txt" || return 1
    [ "$1" = requirements.txt ] || cat "$ROOT/$1"
}

is_installed() {
    [ -x "$PYTHON" ] && [ -f "$STAMP-$1" ] && wanted "$1" 2>/dev/null | cmp -s - "$STAMP-$1"
}

# bootstrap FILE: have everything in FILE installed, requirements-dev.txt includes requirements.txt.
bootstrap() {
    is_installed "$1" && return
    base=$(find_python) || exit 1
    mkdir -p "$VENV"
    # The lock belongs to the open descriptor 9: Python only takes it (flock(1) is missing on macOS), this shell
    # and the pip below hold it, and the kernel frees it however they end.
    exec 9>>"$VENV/.lock"
    "$base" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if ! is_installed "$1"; then
        install "$1"
    fi
    exec 9>&- # or the server would hold it for ever
}

install() {
    rm -f "$STAMP-requirements.txt" "$STAMP-requirements-dev.txt"
    # Begun and never ended: pip takes half a package for a whole one, so start again from nothing.
    if [ -e "$VENV/.installing" ] || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
        say "making the environment .venv with $("$base" --version)"
        rm -rf "$VENV/bin" "$VENV/lib" "$VENV/lib64" "$VENV/include" "$VENV/pyvenv.cfg"
        : >"$VENV/.installing"
        "$base" -m venv "$VENV"
    fi
    : >"$VENV/.installing"
    say "installing $1, this once"
    if ! "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$ROOT/$1"; then
        rm -f "$VENV/.installing" # pip ended by itself and has tidied up
        say "pip could not install $1; its message is above"
        exit 1
    fi
    wanted requirements.txt >"$STAMP-requirements.txt"
    [ "$1" = requirements.txt ] || wanted "$1" >"$STAMP-$1"
    rm -f "$VENV/.installing"
}
