// Package deploy holds the files that run chat on more than one machine, and the tests that run them: nginx and haproxy with the real programs
// in front of three real servers that are killed, frozen and cut off.
//
//	nginx.conf, haproxy.cfg     proxies
//	chat@.service               systemd
//	limits.conf, sysctl.conf    what a server with many sockets needs of the system
//	Dockerfile, compose.yaml    three servers on one machine (read by a parser here, not run)
//	kubernetes.yaml             likewise
package deploy
