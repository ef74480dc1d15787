# Sourced by the shell scripts and by make: sets the folders. Nothing is written to the user's home folder.
# shellcheck shell=bash
MEM2GEN_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
MEM2GEN_HOME="$MEM2GEN_ROOT/.mem2gen"
export MEM2GEN_ROOT MEM2GEN_HOME
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$MEM2GEN_ROOT/target}"
export JUPYTER_CONFIG_DIR="$MEM2GEN_HOME/jupyter-config"
export JUPYTER_DATA_DIR="$MEM2GEN_HOME/jupyter-data"
export JUPYTER_RUNTIME_DIR="$MEM2GEN_HOME/jupyter-runtime"
export JUPYTERLAB_SETTINGS_DIR="$MEM2GEN_HOME/jupyter-config/lab/user-settings"
export JUPYTERLAB_WORKSPACES_DIR="$MEM2GEN_HOME/jupyter-config/lab/workspaces"
export JUPYTER_PATH="$MEM2GEN_HOME/jupyter"
export JUPYTER_PLATFORM_DIRS=1
export IPYTHONDIR="$MEM2GEN_HOME/ipython"
export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$MEM2GEN_HOME/cache/pip}"
export NPM_CONFIG_CACHE="${NPM_CONFIG_CACHE:-$MEM2GEN_HOME/cache/npm}"
export PYTHONDONTWRITEBYTECODE=1
MEM2GEN_PYTHON="$MEM2GEN_HOME/venv/bin/python"
export MEM2GEN_PYTHON
