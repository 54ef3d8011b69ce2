#!/bin/sh
# Run in the image, once the packages are installed: BentoML brings a compiler and git for packages that have to be built.
# Ours are all wheels. What is not there cannot be used by somebody who gets in.
set -eu
# What other packages merely recommend or suggest, such as a compiler, goes as well.
apt-get purge --quiet --yes --auto-remove --option APT::AutoRemove::RecommendsImportant=false \
    --option APT::AutoRemove::SuggestsImportant=false build-essential git gnupg2
rm -rf /var/lib/apt/lists/* /root/.cache
