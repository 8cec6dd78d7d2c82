package filestore_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/memstore"
)

func Example() {
	ctx := context.Background()
	store := memstore.Open() // dirstore.Open for a shared directory
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
