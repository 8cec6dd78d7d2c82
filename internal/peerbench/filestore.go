package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/minio/minio-go/v7"
	miniocredentials "github.com/minio/minio-go/v7/pkg/credentials"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/s3blob"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/filestore/s3store"
	"github.com/nines-go/nines/internal/lab"
)

// Files: one stream puts and gets objects of three sizes. On a directory the limit is a temporary file, fsync, rename and fsync of the folder,
// written by hand; on S3 it is the client's own call. The peer's directory driver makes nothing durable, so it is beside ours for information;
// on S3 both leave that to the server. Contents are read to the end, and put from memory.

func init() { products["files"] = fileRows }

// fileKind is one contestant.
type fileKind struct {
	name string
	put  func(key string, b []byte) error
	get  func(key string) (int64, error)
}

var fileSizes = []struct {
	name string
	n    int
	ops  int // in each round
}{{"64KiB", 64 << 10, 30}, {"4MiB", 4 << 20, 8}, {"256MiB", 256 << 20, 1}}

func fileRows(b *bench) ([]row, error) {
	t := &filesTB{}
	defer t.end()
	dirKinds, err := fileDirectories(t)
	if err != nil {
		return nil, err
	}
	s3Kinds, err := fileBuckets(t)
	if err != nil {
		return nil, err
	}
	rounds := b.rounds
	var rows []row
	for _, size := range fileSizes {
		got, err := fileMeasure(dirKinds, size.n, size.ops, rounds)
		if err != nil {
			return nil, fmt.Errorf("directory, %s: %w", size.name, err)
		}
		put := row{Name: "files.dir.put." + size.name, Unit: "ms", Ours: got["ours"].put, Limit: got["limit"].put, Peers: map[string]float64{"fileblob (not durable)": got["fileblob"].put}}
		get := row{Name: "files.dir.get." + size.name, Unit: "ms", Ours: got["ours"].get, Limit: got["limit"].get, Peers: map[string]float64{"fileblob": got["fileblob"].get}}
		rows = append(rows, put.atMost(1.1, put.Limit, "temp+fsync+rename+dirsync"), get.atMost(1/0.95, get.Limit, "os.File"))
		got, err = fileMeasure(s3Kinds, size.n, size.ops, rounds)
		if err != nil {
			return nil, fmt.Errorf("S3, %s: %w", size.name, err)
		}
		put = row{Name: "files.s3.put." + size.name, Unit: "ms", Ours: got["ours"].put, Limit: got["limit"].put, Peers: map[string]float64{"s3blob": got["s3blob"].put}}
		get = row{Name: "files.s3.get." + size.name, Unit: "ms", Ours: got["ours"].get, Limit: got["limit"].get, Peers: map[string]float64{"s3blob": got["s3blob"].get}}
		unknown := row{Name: "files.s3.put-unknown." + size.name, Unit: "ms", Ours: got["ours-unknown"].put, Limit: got["ours"].put, Peers: map[string]float64{"minio-go": got["limit-unknown"].put}}
		rows = append(rows, put.atMost(1/0.95, put.Limit, "minio-go"), get.atMost(1/0.95, get.Limit, "minio-go"), unknown.atMost(1.3, unknown.Limit, "known size"))
	}
	return rows, nil
}

type fileTimes struct{ put, get float64 }

// fileMeasure lets the contestants take turns, and returns the medians in milliseconds.
func fileMeasure(kinds []fileKind, n, ops, rounds int) (map[string]fileTimes, error) {
	content := make([]byte, n)
	if _, err := rand.Read(content); err != nil {
		return nil, err
	}
	puts, gets := map[string][]float64{}, map[string][]float64{}
	for round := range rounds {
		for i := range kinds {
			k := kinds[(i+round)%len(kinds)]
			for op := range ops {
				key := fmt.Sprintf("bench/%s/%d", k.name, op)
				began := time.Now()
				if err := k.put(key, content); err != nil {
					return nil, fmt.Errorf("%s: %w", k.name, err)
				}
				puts[k.name] = append(puts[k.name], float64(time.Since(began))/1e6)
			}
			for op := range ops {
				key := fmt.Sprintf("bench/%s/%d", k.name, op)
				began := time.Now()
				if m, err := k.get(key); err != nil || m != int64(n) {
					return nil, fmt.Errorf("%s: %d bytes, %w", k.name, m, err)
				}
				gets[k.name] = append(gets[k.name], float64(time.Since(began))/1e6)
			}
		}
	}
	out := map[string]fileTimes{}
	for name := range puts {
		out[name] = fileTimes{median(puts[name]), median(gets[name])}
	}
	return out, nil
}

// onlyReader hides what else a reader can do, its length too.
type onlyReader struct{ io.Reader }

func ours(name string, s *filestore.Store, unknown bool) fileKind {
	ctx, cancel := context.WithCancel(context.Background()) // as a request's is
	_ = cancel
	return fileKind{name,
		func(key string, b []byte) error {
			opts := &filestore.PutOptions{Size: int64(len(b))}
			var r io.Reader = bytes.NewReader(b)
			if unknown {
				opts, r = nil, onlyReader{r}
			}
			_, err := s.Put(ctx, key, r, opts)
			return err
		},
		func(key string) (int64, error) {
			r, _, err := s.Get(ctx, key, nil)
			if err != nil {
				return 0, err
			}
			defer r.Close()
			return io.Copy(io.Discard, onlyReader{r})
		}}
}

func fileDirectories(t *filesTB) ([]fileKind, error) {
	base, err := os.MkdirTemp("", "peerbench-files-") // on a disk
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	dirs := map[string]string{}
	for _, name := range []string{"ours", "limit", "fileblob"} {
		dirs[name] = filepath.Join(base, name)
		if err := os.Mkdir(dirs[name], 0o700); err != nil {
			return nil, err
		}
	}
	store, err := dirstore.Open(context.Background(), dirstore.Config{Dir: dirs["ours"]})
	if err != nil {
		return nil, err
	}
	bucket, err := fileblob.OpenBucket(dirs["fileblob"], &fileblob.Options{NoTempDir: true})
	if err != nil {
		return nil, err
	}
	limit := fileKind{"limit",
		func(key string, b []byte) error { return plainPut(filepath.Join(dirs["limit"], key), b) },
		func(key string) (int64, error) {
			f, err := os.Open(filepath.Join(dirs["limit"], key))
			if err != nil {
				return 0, err
			}
			defer f.Close()
			return io.Copy(io.Discard, onlyReader{f})
		}}
	return []fileKind{limit, ours("ours", store, false), cloud("fileblob", bucket)}, nil
}

// plainPut is what a careful program does by hand.
func plainPut(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	temp := filepath.Join(dir, ".tmp-"+hex.EncodeToString(id))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(b, 256<<10) {
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func cloud(name string, bucket *blob.Bucket) fileKind {
	ctx := context.Background()
	return fileKind{name,
		func(key string, b []byte) error {
			return bucket.Upload(ctx, key, bytes.NewReader(b), &blob.WriterOptions{ContentType: "application/octet-stream"})
		},
		func(key string) (int64, error) {
			r, err := bucket.NewReader(ctx, key, nil)
			if err != nil {
				return 0, err
			}
			defer r.Close()
			return io.Copy(io.Discard, onlyReader{r})
		}}
}

func fileBuckets(t *filesTB) ([]fileKind, error) {
	server := lab.S3(t)
	ctx := context.Background()
	store, err := s3store.Open(ctx, s3store.Config{
		Endpoint: server.Endpoint(), Bucket: server.Bucket(), AccessKey: server.AccessKey, SecretKey: server.SecretKey, NoTLS: true, PathStyle: true,
	})
	if err != nil {
		return nil, err
	}
	client, err := minio.New(server.Endpoint(), &minio.Options{Creds: miniocredentials.NewStaticV4(server.AccessKey, server.SecretKey, ""), Region: "us-east-1"})
	if err != nil {
		return nil, err
	}
	name := server.Bucket()
	raw := func(kind string, unknown bool) fileKind {
		return fileKind{kind,
			func(key string, b []byte) error {
				size, r := int64(len(b)), io.Reader(bytes.NewReader(b))
				if unknown {
					size, r = -1, onlyReader{r}
				}
				_, err := client.PutObject(ctx, name, key, r, size, minio.PutObjectOptions{PartSize: 16 << 20})
				return err
			},
			func(key string) (int64, error) {
				r, err := client.GetObject(ctx, name, key, minio.GetObjectOptions{})
				if err != nil {
					return 0, err
				}
				defer r.Close()
				return io.Copy(io.Discard, onlyReader{r})
			}}
	}
	sdk := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + server.Endpoint()), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, ""),
	})
	bucket, err := s3blob.OpenBucket(ctx, sdk, server.Bucket(), nil)
	if err != nil {
		return nil, err
	}
	return []fileKind{raw("limit", false), ours("ours", store, false), cloud("s3blob", bucket), ours("ours-unknown", store, true), raw("limit-unknown", true)}, nil
}
