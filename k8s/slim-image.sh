#!/bin/sh
# Run in the image, once the packages are installed. What is not there cannot be used by somebody who gets in:
# BentoML brings a compiler and git for packages that have to be built, and ours are all wheels; uv has done its work.
set -eu
# What other packages merely recommend or suggest, such as a compiler, goes as well.
apt-get purge --quiet --yes --auto-remove --option APT::AutoRemove::RecommendsImportant=false \
    --option APT::AutoRemove::SuggestsImportant=false build-essential git gnupg2
apt-get clean
rm -rf /var/lib/apt/lists/* /root/.cache "$(command -v uv)" "$(command -v uvx)"
# Pods write nothing beside the modules: without this, every start of every process would compile them anew.
python -m compileall -q --invalidation-mode unchecked-hash "$BENTO_PATH/src"
# Nobody in there has a reason to become another user.
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
