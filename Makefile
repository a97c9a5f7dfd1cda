# What one does with this repository. `make` alone lists the targets.
# Every target works on a fresh clone: scripts/need.sh installs what is missing, or names it in one line.

.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: help demo run test lint fmt docs bench torture tools

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: ## 40,000 updates through 50 batch + 3,600 single calls per window, with live progress
	@scripts/need.sh build
	@$(CARGO) run --release --quiet -- demo $(ARGS)

run: ## the daemon with the configuration of ./tidegate.toml (written by `init` when it is missing)
	@scripts/need.sh build
	@test -e tidegate.toml || $(CARGO) run --release --quiet -- init .
	@$(CARGO) run --release --quiet -- serve --config tidegate.toml $(ARGS)

test: ## everything that a change must pass; prints the number of tests
	@scripts/test.sh

lint: ## format, clippy, documentation, protos and the laws of the house, without the other tests
	@scripts/test.sh lint

fmt: ## format the sources
	@$(CARGO) fmt

docs: ## the crate documentation, in target/doc
	@scripts/need.sh build
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

bench: ## figures of a release build beside the machine's own ceilings
	@scripts/need.sh build
	@$(CARGO) run --release --quiet -- bench $(ARGS)

torture: ## 100 kills and 20 power cuts under load, judged by the history checker; about an hour
	@scripts/need.sh test
	@scripts/torture.sh $(ARGS)

tools: ## install what the other targets need, without running anything
	@scripts/need.sh test
