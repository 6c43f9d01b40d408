// The Go server: a goroutine per connection, written with the standard library alone.
//
// GOMAXPROCS follows the CPUs that the driver has bound the process to. It ends with its stdin, like the others.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	connectionBuffer = 4 * 1024
	spinSize         = 16
	askHome          = ^uint64(0)
	threadCPUTime    = 3 // CLOCK_THREAD_CPUTIME_ID
)

func main() {
	service := flag.String("service", "echo", "echo, udp or spin")
	flag.String("cpu", "0", "taken for the others' sake: the driver has bound the process already")
	flag.Parse()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if *service == "udp" {
		echoDatagrams()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Printf("listening %s\n", listener.Addr())
	for {
		connection, err := listener.Accept()
		check(err)
		if *service == "spin" {
			go spin(connection)
		} else {
			go echo(connection)
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func echo(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, connectionBuffer)
	for {
		count, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:count]); err != nil {
			return
		}
	}
}

func spin(connection net.Conn) {
	defer connection.Close()
	request := make([]byte, spinSize)
	for {
		if _, err := io.ReadFull(connection, request); err != nil {
			return
		}
		service := binary.LittleEndian.Uint64(request[8:])
		if service == askHome {
			binary.LittleEndian.PutUint64(request[8:], 0) // connections have no home here
		} else {
			burn(int64(service))
		}
		if _, err := connection.Write(request); err != nil {
			return
		}
	}
}

// burn uses that much CPU time. A goroutine may be moved to another thread meanwhile, whose clock shows another
// time: a step counts for as much as its thread has run, and for no more than it has lasted.
func burn(ns int64) {
	cpu, wall := threadTime(), time.Now()
	for ns > 0 {
		nextCPU, nextWall := threadTime(), time.Now()
		step, bound := nextCPU-cpu, nextWall.Sub(wall).Nanoseconds()
		if step > bound {
			step = bound
		}
		if step > 0 {
			ns -= step
		}
		cpu, wall = nextCPU, nextWall
	}
}

func threadTime() int64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadCPUTime, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

func echoDatagrams() {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(err)
	fmt.Printf("listening %s\n", socket.LocalAddr())
	buffer := make([]byte, connectionBuffer)
	for {
		count, from, err := socket.ReadFrom(buffer)
		check(err)
		_, err = socket.WriteTo(buffer[:count], from)
		check(err)
	}
}
