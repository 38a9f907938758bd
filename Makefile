# What a clone can do. Every target installs what it needs and says so; `make run` is the place to start.

.DEFAULT_GOAL := help
.PHONY: help build run test check format clean

SWIFT ?= swift
BINARY := .build/release/tproxy
# Static but for libc and its kin, so that the program runs wherever these do; every symbol is bound at start and then
# read-only.
RELEASE := -c release --product tproxy --static-swift-stdlib -Xlinker -z -Xlinker relro -Xlinker -z -Xlinker now

help: ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## Build the release program, .build/release/tproxy
	@scripts/install-missing build
	$(SWIFT) build $(RELEASE)

run: build ## See it work: two HTTP servers behind a routing script, and what to try next
	@scripts/install-missing run
	@STAY='$(STAY)' scripts/demo $(BINARY)

test: build ## Run all tests, the release program's among them
	@scripts/install-missing test
	@SWIFT='$(SWIFT)' TPROXY_BINARY='$(CURDIR)/$(BINARY)' scripts/test

check: ## What CI runs before the tests: format, layers, warnings
	@SWIFT='$(SWIFT)' scripts/check

format: ## Format the Swift sources
	$(SWIFT) format -i -r -p Package.swift Sources Tests

clean: ## Remove what was built
	rm -rf .build
