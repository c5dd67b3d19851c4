// Reads a stream of native events with net/http, and comes back after a cut. Prints each event: its name and data.
// Argument: the stream's URL.
package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	last := ""
	for {
		request, _ := http.NewRequest("GET", os.Args[1], nil)
		if last != "" {
			request.Header.Set("Last-Event-ID", last)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			continue // it was cut before the first byte
		}
		if response.StatusCode != http.StatusOK {
			fmt.Fprintln(os.Stderr, response.Status)
			os.Exit(1)
		}
		fields := map[string]string{}
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			if line := lines.Text(); line != "" {
				name, value, _ := strings.Cut(line, ":")
				fields[name] = strings.TrimPrefix(value, " ")
				continue
			}
			if data, told := fields["data"]; told {
				if id, given := fields["id"]; given {
					last = id
				}
				fmt.Println(fields["event"], data)
				if fields["event"] == "done" || fields["event"] == "error" {
					return
				}
			}
			fields = map[string]string{}
		}
		response.Body.Close()
	}
}
