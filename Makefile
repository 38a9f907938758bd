# What a clone can do. Every target installs what it needs and says so; `make run` is the place to start.

.DEFAULT_GOAL := help
.PHONY: help build install run test soak bench audit check format clean

SWIFT ?= swift
BINARY := .build/release/tproxy
PREFIX ?= /usr/local
# A folder that stands for / while a package is made.
DESTDIR ?=
bin = $(DESTDIR)$(PREFIX)/bin
share = $(DESTDIR)$(PREFIX)/share/tproxy
# Static but for libc and its kin, so that the program runs wherever these do; every symbol is bound at start and then
# read-only.
RELEASE := -c release --product tproxy --static-swift-stdlib -Xlinker -z -Xlinker relro -Xlinker -z -Xlinker now

help: ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## Build the release program, .build/release/tproxy
	@scripts/install-missing build
	$(SWIFT) build $(RELEASE)

# Nothing is downloaded or compiled by root after a `make build`. The unit files say where the program really is.
install: $(if $(wildcard $(BINARY)),,build) ## Install into PREFIX (/usr/local): program, Python package, examples, unit files
	install -d '$(bin)' '$(share)/python/tproxy' '$(share)/python/examples' '$(share)/systemd'
	install -s -m 755 $(BINARY) '$(bin)/tproxy'
	install -m 644 routers/python/tproxy/*.py routers/python/tproxy/py.typed '$(share)/python/tproxy'
	install -m 644 routers/python/examples/*.* '$(share)/python/examples'
	for unit in packaging/tproxy.service packaging/tproxy.socket; do \
	    sed 's|/usr/local/bin/|$(PREFIX)/bin/|' $$unit > "$(share)/systemd/$${unit##*/}" && \
	    chmod 644 "$(share)/systemd/$${unit##*/}" || exit; \
	done
	install -m 644 LICENSE '$(share)/LICENSE'

run: build ## See it work: two HTTP servers behind a routing script, and what to try next
	@scripts/install-missing run
	@STAY='$(STAY)' scripts/demo $(BINARY)

test: build ## Run all tests, the release program's among them
	@scripts/install-missing test
	@SWIFT='$(SWIFT)' TPROXY_BINARY='$(CURDIR)/$(BINARY)' scripts/test

soak: build ## Reload, upgrade and kill under load for some minutes: nothing may fail, and the figures are printed
	@scripts/install-missing soak
	scripts/soak $(BINARY) $(SOAK)

bench: build ## Requests a second and CPU of each, beside other proxies, in about a minute
	@scripts/install-missing bench
	@benchmarks/bench $(BINARY)

audit: build ## Let testssl.sh look for weaknesses in a TLS listener with the defaults
	@scripts/install-missing audit
	@scripts/audit $(BINARY)

check: ## What CI runs before the tests: format, layers, warnings
	@scripts/install-missing build
	@SWIFT='$(SWIFT)' scripts/check

format: ## Format the Swift sources
	$(SWIFT) format -i -r -p Package.swift Sources Tests

clean: ## Remove what was built
	rm -rf .build
