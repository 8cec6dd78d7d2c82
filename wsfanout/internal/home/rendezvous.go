package home

import "slices"

// PartitionOf returns the partition of a topic among n: the FNV-1a hash of its name, mixed, modulo n. All nodes must
// agree on it, so it is part of the frame version.
func PartitionOf(topic string, n int) int {
	return int(mix(fnv1a(topic)) % uint64(n))
}

// rank returns the first and second of the nodes for a partition, and the second that is not self. The node with the
// highest mix(hash(node) xor mix(partition+1)) is first; equal hashes are ordered by ID.
func rank(part int, nodes []string, hashes []uint64, self string) (first, second string) {
	key := mix(uint64(part) + 1)
	var best, other uint64
	for i, id := range nodes {
		s := mix(hashes[i] ^ key)
		if first == "" || s > best || s == best && id > first {
			first, best = id, s
		}
		if id != self && (second == "" || s > other || s == other && id > second) {
			second, other = id, s
		}
	}
	return first, second
}

// rankBy is rank with an order that a test gives.
func rankBy(order, nodes []string, self string) (first, second string) {
	for _, id := range order {
		if !slices.Contains(nodes, id) {
			continue
		}
		if first == "" {
			first = id
		}
		if second == "" && id != self {
			second = id
		}
	}
	return first, second
}

func fnv1a(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix is the finalizer of MurmurHash3: every bit of x changes about half of the bits of the result.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}
