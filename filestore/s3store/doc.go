// Package s3store keeps a filestore.Store in a bucket of Amazon S3 or of a server that speaks S3.
//
// # Writing
//
// A content that ends within the first part goes up as one request, also when its size was unknown, with its SHA-256 in the signature: the server
// refuses what arrives damaged. A longer one goes up in parts, two of which are in memory at once, and becomes visible when the last request
// puts them together; an upload that fails is aborted. A content that does not fit into 10,000 parts is an error, never a shorter object.
//
// # What is tried out
//
// Servers that speak S3 differ. Open writes a few objects below .nines/probe to see whether they can be written at all, whether conditional
// requests are obeyed, for single requests and for uploads in parts, and whether a key may be below another object. Store.Capabilities
// tells what was found; what a server would silently ignore is errors.ErrUnsupported.
//
// # Attributes
//
// Content type and metadata are S3's own, so other programs see them; a value of metadata outside ASCII is an encoded word (RFC 2047). The SHA-256
// is kept as metadata nines-sha256: it is known of objects of one part, and of larger ones whose PutOptions.SHA256 was given, else nil.
//
// Uploads in parts that a crash cut off cost room until they are aborted: give the bucket a lifecycle rule that aborts incomplete
// uploads after a day.
package s3store
