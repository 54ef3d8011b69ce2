#!/bin/sh
# Run in the image, once the packages are installed: BentoML brings a compiler and git for packages that have to be built.
# Ours are all wheels. What is not there cannot be used by somebody who gets in.
set -eu
apt-get purge --quiet --yes --auto-remove build-essential git gnupg2
rm -rf /var/lib/apt/lists/* /root/.cache
