// Command kubernetes is every program of a one-machine Kubernetes in one
// binary: the upstream command packages, unchanged, chosen by the name it is
// started under or by its first argument.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// programs maps a program's name to its upstream cobra command.
var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args
	if _, known := programs[name]; !known && name != "etcd" && len(args) > 1 {
		name, args = args[1], args[1:]
	}
	os.Args = args
	if name == "etcd" {
		etcdmain.Main(args)
		return
	}
	build, known := programs[name]
	if !known {
		names := []string{"etcd"}
		for program := range programs {
			names = append(names, program)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "usage: %s PROGRAM [flags]; programs: %v\n", filepath.Base(os.Args[0]), names)
		os.Exit(2)
	}
	os.Exit(cli.Run(build()))
}
