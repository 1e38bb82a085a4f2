# Sourced by quickstart.sh and run_tests.sh, not run: $ROOT, step and setup_venv.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

say() { printf '== %s\n' "$*"; }

# step TEXT COMMAND...: say what is done and how long it took; a failure ends the script with the command's exit status.
step() {
    local text=$1 began=$SECONDS status=0
    shift
    say "$text"
    "$@" || status=$?
    if ((status)); then
        say "$text: FAILED after $((SECONDS - began)) s with exit status $status"
        exit "$status"
    fi
    say "$text: done in $((SECONDS - began)) s"
}

# find_python NEWEST: print the first Python from 3.10 to 3.NEWEST that runs; PYTHON=... names the only candidate.
find_python() {
    local candidate candidates=(python3 python3.12 python3.13 python3.11 python3.10 python)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $1))" &>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "error: none of ${candidates[*]} is a Python from 3.10 to 3.$1; install one or set PYTHON=/path/to/python" >&2
    return 2
}

# make_venv PYTHON: a fresh $VENV. Where Python lacks ensurepip (Debian without python3-venv), its own pip serves.
make_venv() {
    if "$1" -c 'import ensurepip' 2>/dev/null; then
        "$1" -m venv --clear "$VENV"
    else
        "$1" -m venv --clear --without-pip "$VENV" && "$1" -m pip --python "$VENV/bin/python" install --quiet pip
    fi
}

# Whether $VENV was made in a folder of another name: its programs begin with their old path.
moved() { [ -e "$VENV/.installed" ] && [ "$(head -n 1 "$VENV/.installed")" != "$ROOT" ]; }

# install_all REQUIREMENT...: pip 22 is the first that surely installs a pyproject.toml with -e.
install_all() {
    export PYTHONWARNINGS=ignore
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "pip>=22" &&
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@" &&
        "$VENV/bin/python" -c 'import paddle; print("Paddle", paddle.__version__, "is installed")'
}

# setup_venv [PADDLE_VERSION]: set $VENV (.venv, or .venv-paddle-VERSION); install the repository and Paddle into it.
# A stamp there tells for which folder, pyproject.toml and Paddle it was done: while that holds, nothing is done again.
# A .venv that holds paddlepaddle-gpu keeps it.
setup_venv() {
    local version=${1:-} newest=13 python stamp packages
    VENV="$ROOT/.venv${version:+-paddle-$version}"
    if [ -z "$version" ]; then
        packages=(-e ".[cpu,dev]")
    else
        packages=(-e ".[dev]" "paddlepaddle==$version")
        # Paddle 2 has wheels up to Python 3.12, and aborts with numpy 2.
        case $version in 2.*) newest=12 packages+=("numpy<2" setuptools) ;; esac
    fi
    stamp="$ROOT
paddle ${version:-of pyproject.toml}, $(cksum <"$ROOT/pyproject.toml")"
    if [ "$(cat "$VENV/.installed" 2>/dev/null)" = "$stamp" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
        echo "$VENV is up to date"
        return
    fi
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || moved; then
        python=$(find_python "$newest") || return
        echo "making $VENV with $python"
        make_venv "$python" || return
    elif [ -z "$version" ] && "$VENV/bin/python" -m pip show --quiet paddlepaddle-gpu 2>/dev/null; then
        packages=(-e ".[dev]")
    fi
    rm -f "$VENV/.installed"
    echo "installing ${packages[*]} (about 1.5 GB on disk; a minute or more)"
    (cd "$ROOT" && install_all "${packages[@]}") || return
    printf '%s\n' "$stamp" >"$VENV/.installed"
}
