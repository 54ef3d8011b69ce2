// Calls a running misfit over gRPC with the messages and the client that protoc-gen-go makes of the proto.
// Arguments: host and port, token, folder of PNG files, the ids that are to be flagged.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	misfit "misfit/v1"
)

func main() {
	target, token, folder, flagged := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	connection, err := grpc.Dial(target, grpc.WithInsecure())
	check(err)
	defer connection.Close()
	client := misfit.NewMisfitServiceClient(connection)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
	images := read(folder)

	options := &misfit.ScoreOptions{Threshold: proto.Float64(0.5), Fdr: proto.Float64(0.1)}
	scored, err := client.Score(ctx, &misfit.ScoreRequest{Images: images, Options: options})
	check(err)
	var ids []string
	for _, item := range scored.Items {
		if item.GetIsOutlier() {
			ids = append(ids, item.Id)
		}
	}
	sort.Strings(ids)
	if strings.Join(ids, " ") != strings.Join(flagged, " ") {
		log.Fatalf("%v, expected %v", ids, flagged)
	}

	edited, err := client.Edit(ctx, &misfit.EditRequest{Images: images})
	check(err)
	if len(edited.Pictures) != len(flagged) {
		log.Fatalf("%d pictures", len(edited.Pictures))
	}

	if _, err := client.Describe(context.Background(), &misfit.DescribeRequest{}); status.Code(err) != codes.Unauthenticated {
		log.Fatalf("let in without a token: %v", err)
	}
	fmt.Println("every call was answered")
}

func read(folder string) *misfit.Images {
	paths, err := filepath.Glob(filepath.Join(folder, "*.png"))
	check(err)
	files, ids := &misfit.ImageFiles{}, []string{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		check(err)
		files.Contents = append(files.Contents, content)
		ids = append(ids, filepath.Base(path))
	}
	return &misfit.Images{Form: &misfit.Images_Files{Files: files}, Ids: ids}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
