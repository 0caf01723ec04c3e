// Reads dashboards as Grafana does, with its own types: a field that it does not know, or one of the wrong type, is an error. Fields
// that are absent are none: Grafana fills them in when it loads a dashboard.
// usage: dashboards FILE...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func withoutAbsent(err error) error {
	var found cog.BuildErrors
	if err == nil || !errors.As(err, &found) {
		return err
	}
	var rest cog.BuildErrors
	for _, one := range found {
		if one.Message != "required field is missing from input" {
			rest = append(rest, one)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return rest
}

func check(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var read dashboard.Dashboard
	if err := withoutAbsent(read.UnmarshalJSONStrict(text)); err != nil {
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
