package fit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/nines-go/nines"

// products are the packages that never import each other, with the sub-packages that belong to them.
var products = []string{"cluster", "election", "dbrouter", "wsfanout", "filestore", "jobs"}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path string }
}

// list returns the packages that patterns match and everything they need, by import path.
func list(t *testing.T, patterns ...string) map[string]pkg {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Imports,Deps,Standard,Module"}, patterns...)...)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	pkgs := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if err == io.EOF {
			return pkgs
		}
		require.NoError(t, err)
		pkgs[p.ImportPath] = p
	}
}

func of(product, path string) bool {
	return path == module+"/"+product || strings.HasPrefix(path, module+"/"+product+"/")
}

func TestProductsNeverImportEachOther(t *testing.T) {
	for path, p := range list(t, "./...") {
		for _, a := range products {
			if !of(a, path) {
				continue
			}
			for _, dep := range p.Imports {
				for _, b := range products {
					if a != b && of(b, dep) {
						t.Errorf("%s imports %s", path, dep)
					}
				}
				if strings.HasPrefix(dep, module+"/examples/") || dep == "testing" && !strings.HasSuffix(path, "test") {
					t.Errorf("%s imports %s", path, dep)
				}
			}
		}
	}
}

// third returns the modules of third parties that path links: all, and those that the product's own code imports.
func third(pkgs map[string]pkg, product, path string) (all, direct []string) {
	outside := func(dep string) (string, bool) {
		p := pkgs[dep]
		return modulePath(p), !p.Standard && p.Module != nil && p.Module.Path != module
	}
	own := append([]string{path}, pkgs[path].Deps...)
	for _, dep := range own {
		if m, ok := outside(dep); ok {
			all = append(all, m)
		}
		if of(product, dep) || strings.HasPrefix(dep, module+"/internal/") {
			for _, d := range pkgs[dep].Imports {
				if m, ok := outside(d); ok {
					direct = append(direct, m)
				}
			}
		}
	}
	slices.Sort(all)
	slices.Sort(direct)
	return slices.Compact(all), slices.Compact(direct)
}

func modulePath(p pkg) string {
	if p.Module == nil {
		return ""
	}
	return p.Module.Path
}

// The table of the README names the third-party modules that each package's own code imports.
func TestReadmeTellsWhatEachPackageLinks(t *testing.T) {
	table := readmeLinks(t)
	for path, want := range table {
		product, _, _ := strings.Cut(path, "/")
		full := module + "/" + path
		pkgs := list(t, full)
		require.Contains(t, pkgs, full)
		_, direct := third(pkgs, product, full)
		require.Equal(t, want, direct, "README's table, row %s", path)
	}
	for _, p := range products {
		require.Contains(t, table, p, "README's table has no row for %s", p)
	}
}

// links.txt names every module that each package brings along, so that a new one is seen in review.
func TestLinkedModules(t *testing.T) {
	var b strings.Builder
	for _, path := range slices.Sorted(mapKeys(readmeLinks(t))) {
		product, _, _ := strings.Cut(path, "/")
		full := module + "/" + path
		all, _ := third(list(t, full), product, full)
		b.WriteString(path + ":\n")
		for _, m := range all {
			b.WriteString("\t" + m + "\n")
		}
	}
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile("links.txt", []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile("links.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "if the new module is wanted, run the test with UPDATE=1")
}

func mapKeys(m map[string][]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// readmeLinks reads the rows `| [cluster](cluster) | … | links |` of the README's table.
func readmeLinks(t *testing.T) map[string][]string {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	rows := map[string][]string{}
	for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
		cells := strings.Split(scan.Text(), "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "[`") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(cells[1]), "[`"), "`]")
		var links []string
		for l := range strings.SplitSeq(cells[3], ",") {
			if l = strings.Trim(strings.TrimSpace(l), "`"); l != "—" {
				links = append(links, l)
			}
		}
		slices.Sort(links)
		rows[name] = links
	}
	return rows
}

// The README's program is the text of examples/embed.
func TestReadmeShowsTheEmbedProgram(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	program, err := os.ReadFile("../../examples/embed/main.go")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(readme), "<!-- examples/embed/main.go -->\n```go\n")
	require.True(t, found)
	shown, _, found := strings.Cut(rest, "```\n")
	require.True(t, found)
	require.Equal(t, string(program), shown, "copy examples/embed/main.go into the README")
}
