package filestore_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/memstore"
	"github.com/nines-go/nines/filestore/s3store"
)

func Example() {
	ctx := context.Background()
	store := memstore.Open() // dirstore.Open for a shared directory, s3store.Open for a bucket
	defer store.Close()
	_, err := store.Put(ctx, "notes/1.txt", strings.NewReader("hello"), &filestore.PutOptions{ContentType: "text/plain", IfAbsent: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	for o, err := range store.List(ctx, "notes/", "") {
		fmt.Println(o.Key, o.Size, o.ContentType, err)
	}
	// Output: notes/1.txt 5 text/plain <nil>
}

// From a directory to a bucket, with a line of progress. What was copied before is skipped.
func ExampleCopy() {
	ctx := context.Background()
	from, to := memstore.Open(), memstore.Open()
	for _, key := range []string{"a", "b/c"} {
		if _, err := from.WriteFile(ctx, key, []byte("text"), nil); err != nil {
			fmt.Println(err)
			return
		}
	}
	result, err := filestore.Copy(ctx, from, to, &filestore.CopyOptions{Progress: func(p filestore.CopyProgress) {
		fmt.Fprintf(os.Stderr, "\r%d of %d objects, %d of %d bytes", p.Objects, p.TotalObjects, p.Bytes, p.TotalBytes)
	}})
	fmt.Println(result.Copied, result.Failed, err)
	// Output: 2 0 <nil>
}

// A counter that several nodes raise, where the storage can compare.
func ExampleStore_Put_ifMatch() {
	ctx := context.Background()
	store := memstore.Open()
	first, err := store.WriteFile(ctx, "n", []byte("1"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = store.WriteFile(ctx, "n", []byte("2"), &filestore.PutOptions{IfMatch: first.Version})
	fmt.Println(err)
	_, err = store.WriteFile(ctx, "n", []byte("2"), &filestore.PutOptions{IfMatch: first.Version})
	fmt.Println(err)
	// Output:
	// <nil>
	// filestore: put "n": filestore: precondition failed
}

// An upload that arrives in pieces, each with its position: one that comes twice is appended once.
func ExampleStore_Append() {
	ctx := context.Background()
	store := memstore.Open()
	if _, err := store.WriteFile(ctx, "upload", []byte("hello"), nil); err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		o, err := store.Append(ctx, "upload", strings.NewReader(", world"), &filestore.AppendOptions{At: 5})
		fmt.Println(o.Size, err)
	}
	// Output:
	// 12 <nil>
	// 0 filestore: append "upload": filestore: precondition failed: it has 12 bytes, not 5
}

// A bucket for files and another one, with its own keys and larger parts, for exports.
func Example_exportStore() {
	ctx := context.Background()
	files, err := s3store.Open(ctx, s3store.Config{Bucket: "app-files", Region: "eu-central-1"}) // the machine's role
	if err != nil {
		fmt.Println(err)
		return
	}
	defer files.Close()
	exports, err := s3store.Open(ctx, s3store.Config{
		Bucket: "app-exports", Region: "eu-central-1", AccessKey: os.Getenv("EXPORT_KEY"), SecretKey: os.Getenv("EXPORT_SECRET"), PartSize: 100 << 20,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer exports.Close()
	link, err := exports.SignedURL(ctx, "2026/report.zip", &filestore.SignOptions{TTL: 6 * time.Hour})
	fmt.Println(link, err)
}

// Latencies by operation, for whatever counts them.
func ExampleObserve() {
	ctx := context.Background()
	store := filestore.Observe(memstore.Open(), func(op filestore.Operation) {
		fmt.Println(op.Name, op.Key, op.Bytes, op.Duration < time.Minute, op.Err)
	})
	if _, err := store.WriteFile(ctx, "k", []byte("text"), nil); err != nil {
		fmt.Println(err)
	}
	// Output: put k 4 true <nil>
}
