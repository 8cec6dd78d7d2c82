package mirror_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nines-go/nines/filestore/memstore"
	"github.com/nines-go/nines/filestore/mirror"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "extensions-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	m, err := mirror.New(mirror.Config{Store: memstore.Open(), Dir: dir}) // with Cluster: node, the others follow at once
	if err != nil {
		fmt.Println(err)
		return
	}
	var bundle bytes.Buffer
	z := gzip.NewWriter(&bundle)
	w := tar.NewWriter(z)
	_ = w.WriteHeader(&tar.Header{Name: "hello.txt", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5})
	_, _ = w.Write([]byte("hello"))
	_, _ = w.Close(), z.Close()

	e, err := m.Install(ctx, "weather", "1.4.0", &bundle, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := os.ReadFile(filepath.Join(e.Path, "hello.txt"))
	fmt.Println(e.ID, e.Version, e.Enabled, string(text), err)
	// Output: weather 1.4.0 false hello <nil>
}
