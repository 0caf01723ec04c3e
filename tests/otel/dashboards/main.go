// Reads dashboards as Grafana does, with its own types: a field that it does not know, or one of the wrong type, is an error.
// usage: dashboards FILE...
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func check(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var read dashboard.Dashboard
	if err := read.UnmarshalJSONStrict(text); err != nil {
		return 0, err
	}
	if err := read.Validate(); err != nil {
		return 0, err
	}
	if _, err := json.Marshal(read); err != nil {
		return 0, err
	}
	return len(read.Panels), nil
}

func main() {
	plugins.RegisterDefaultPlugins()
	failed := false
	for _, path := range os.Args[1:] {
		panels, err := check(path)
		if err != nil {
			failed = true
			fmt.Printf("%s: %v\n", path, err)
			continue
		}
		fmt.Printf("%s: %d panels\n", path, panels)
	}
	if failed {
		os.Exit(1)
	}
}
