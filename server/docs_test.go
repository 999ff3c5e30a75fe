package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/process"
)

// pages returns the Markdown files by path, relative to the root of the module.
func pages(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pages[strings.TrimPrefix(file, "../")] = string(text)
		}
	}
	return pages
}

// help returns the output of a command with --help.
func help(t *testing.T, args ...string) string {
	t.Helper()
	if args[0] == "client" {
		printed, err := process.Run(t.Context(), must(clientProgram()), append(args[1:], "--help")...)
		if err != nil {
			t.Fatal(err)
		}
		return printed
	}
	var out strings.Builder
	if err := run(t.Context(), append(args[1:], "--help"), &out, io.Discard); !errors.Is(err, command.ErrHelp) {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String()
}

var flagPattern = regexp.MustCompile(`--[a-z][a-z0-9-]+`)

// Commands in the documentation use only existing flags.
func TestDocumentedCommandsHaveTheirFlags(t *testing.T) {
	t.Parallel()
	helps := make(map[string]string)
	commands := regexp.MustCompile(`(?m)^ {4,}go run \./(server|client)((?: (?:notes|load|play|leave|follow|chat|export|import|stats))*)(.*)$`)
	count := 0
	for page, text := range pages(t) {
		for _, match := range commands.FindAllStringSubmatch(text, -1) {
			args := append([]string{match[1]}, strings.Fields(match[2])...)
			if match[0] = strings.TrimSpace(match[0]); len(args) == 1 && args[0] == "client" {
				args = append(args, "play") // the default
			}
			name := strings.Join(args, " ")
			if helps[name] == "" {
				helps[name] = help(t, args...)
			}
			own, _, _ := strings.Cut(match[3], "|")
			for _, flag := range flagPattern.FindAllString(own, -1) {
				if !strings.Contains(helps[name], flag) {
					t.Errorf("%s: %s has no flag %s: %s", page, name, flag, match[0])
				}
			}
			count++
		}
	}
	if count < 10 {
		t.Errorf("found %d documented commands, want at least 10", count)
	}
}

// The tables of flags have the flags of --help, with the same defaults.
func TestDocumentedFlagsAreThoseOfHelp(t *testing.T) {
	t.Parallel()
	helpTexts := make(map[string]string) // by flag
	lines := strings.Split(help(t, "server"), "\n")
	name := ""
	for _, line := range lines {
		if match := regexp.MustCompile(`^ +(?:-h, )?(--[a-z0-9-]+)`).FindStringSubmatch(line); match != nil {
			name = match[1]
		}
		helpTexts[name] += " " + strings.TrimSpace(line)
	}
	delete(helpTexts, "")
	delete(helpTexts, "--help")
	delete(helpTexts, "--version")
	documented := make(map[string]string)
	all := pages(t)
	for _, page := range []string{"docs/configuration.md", "docs/limits.md"} {
		for _, row := range regexp.MustCompile("(?m)^\\| (`--[^|]*(?:\\\\\\|[^|]*)*) \\| ([^|]*) \\|").FindAllStringSubmatch(all[page], -1) {
			for _, flag := range flagPattern.FindAllString(row[1], -1) {
				documented[flag] = row[2]
			}
		}
	}
	for flag, text := range helpTexts {
		value, ok := documented[flag]
		if !ok {
			t.Errorf("%s is in neither docs/configuration.md nor docs/limits.md", flag)
			continue
		}
		// Help has a default in parentheses, or as "0, the default".
		if match := regexp.MustCompile("^`?([0-9][0-9A-Za-z]*)").FindStringSubmatch(value); match != nil &&
			!strings.Contains(text, "("+match[1]+")") && !strings.Contains(text, match[1]+", the default") && !strings.Contains(text, "By default "+match[1]) {
			t.Errorf("%s: the documentation has the default %q, and help has%s", flag, match[1], text)
		}
	}
	for flag := range documented {
		if helpTexts[flag] == "" {
			t.Errorf("%s is documented, but not in help", flag)
		}
	}
}

// docs/limits.md has each limit with its code, hidden flags included.
func TestDocumentedLimitsHaveTheirCodes(t *testing.T) {
	t.Parallel()
	page := pages(t)["docs/limits.md"]
	for _, limit := range (&limitFlags{}).limits() {
		row := regexp.MustCompile("(?m)^\\| [^|]*`--" + limit.flag + "`[^\n]*$").FindString(page)
		if row == "" || !strings.Contains(row, limit.code) {
			t.Errorf("--%s: the page does not have it with the code %q: %s", limit.flag, limit.code, row)
		}
	}
}

func TestDocumentedTargetsTestsAndLinksExist(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for page, text := range pages(t) {
		for _, match := range regexp.MustCompile("(?m)(?:^ {4,}|`)make ([a-z ]+)").FindAllStringSubmatch(text, -1) {
			for target := range strings.FieldsSeq(match[1]) {
				if !regexp.MustCompile(`(?m)^` + target + `:`).Match(makefile) {
					t.Errorf("%s: no target %s in the Makefile", page, target)
				}
			}
		}
		for _, match := range regexp.MustCompile("(?:cd (\\S+) && )?go test [^`]*-run\\s+(\\S+)[^`]*?(\\./[a-z0-9/]+)").FindAllStringSubmatch(text, -1) {
			pattern, folder := regexp.MustCompile(`func \w*(?:`+strings.Trim(match[2], "'")+`)`), filepath.Join("..", match[1], match[3])
			files, _ := filepath.Glob(filepath.Join(folder, "*_test.go"))
			if !slices.ContainsFunc(files, func(file string) bool {
				source, err := os.ReadFile(file)
				return err == nil && pattern.Match(source)
			}) {
				t.Errorf("%s: no test %s in %s", page, match[2], folder)
			}
		}
		for _, match := range regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", filepath.Dir(page), match[1])); err != nil {
				t.Errorf("%s: broken link %s", page, match[1])
			}
		}
	}
}

// The client in the README runs unchanged.
func TestDocumentedClientRuns(t *testing.T) {
	t.Parallel()
	_, url := startProcess(t, "--store", "memory:")
	_, block, _ := strings.Cut(pages(t)["README.md"], "```go\n")
	source, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatal("no Go code in the README")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	write(t, file, strings.Replace(source, "http://localhost:50051", url, 1))
	printed, err := exec.Command("go", "run", file).CombinedOutput()
	if err != nil || string(printed) != "Hello from Go\n" {
		t.Errorf("it prints %q, %v", printed, err)
	}
}
