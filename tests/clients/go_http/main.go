// Calls a running misfit with the client that openapi-generator makes of /docs.json.
// Arguments: address, token, folder of PNG files, the ids that are to be flagged.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"

	misfit "example.com/clients/misfit"
)

func main() {
	address, token, folder, flagged := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	configuration := misfit.NewConfiguration()
	configuration.Servers = misfit.ServerConfigurations{{URL: address}}
	client := misfit.NewAPIClient(configuration)
	ctx := context.WithValue(context.Background(), misfit.ContextAccessToken, token)

	// The client sends every default of the query along.
	options := misfit.NewScoreOptions()
	options.SetFdr(0.1)
	scored, _, err := client.ImagesAPI.Score(ctx).Images(open(folder)).Options(*options).Execute()
	check(err)
	var ids []string
	for _, item := range scored.Items {
		if item.GetIsOutlier() {
			ids = append(ids, filepath.Base(item.Id))
		}
	}
	same(flagged, ids)

	fitted, _, err := client.ImagesAPI.Fit(ctx).Images(open(folder)).Execute()
	check(err)
	compared, _, err := client.ImagesAPI.Score(ctx).Images(open(folder)).Context(fitted.Context).Execute()
	check(err)
	if compared.Context.Source != "reference" {
		log.Fatalf("compared with %s", compared.Context.Source)
	}

	edited, _, err := client.PicturesAPI.Edit(ctx).Images(open(folder)).Options(*misfit.NewEditOptions()).Execute()
	check(err)
	ids = nil
	for _, picture := range edited.Pictures {
		ids = append(ids, filepath.Base(picture.Id))
	}
	same(flagged, ids)

	named, _, err := client.PicturesAPI.Edit(ctx).Images(open(folder)).Which([]string{"0", "1"}).Execute()
	check(err)
	if len(named.Pictures) != 2 {
		log.Fatalf("%d pictures", len(named.Pictures))
	}

	described, _, err := client.ModelAPI.Describe(ctx).Execute()
	check(err)
	latents := [][]float64{make([]float64, described.LatentDim)}
	decoded, _, err := client.PicturesAPI.Decode(ctx).DecodeRequest(*misfit.NewDecodeRequest(latents)).Execute()
	check(err)
	if len(decoded.Pictures) != 1 {
		log.Fatalf("%d pictures", len(decoded.Pictures))
	}

	_, _, err = client.ModelAPI.Describe(context.Background()).Execute()
	var refused *misfit.GenericOpenAPIError
	if !errors.As(err, &refused) {
		log.Fatalf("let in without a token: %v", err)
	}
	detail, ok := refused.Model().(misfit.ErrorResponse)
	if !ok || detail.Error.Code != "unauthenticated" {
		log.Fatalf("another error: %v", err)
	}
	fmt.Println("every call was answered")
}

// open opens every file of a folder. The client closes them.
func open(folder string) []*os.File {
	paths, err := filepath.Glob(filepath.Join(folder, "*.png"))
	check(err)
	var files []*os.File
	for _, path := range paths {
		file, err := os.Open(path)
		check(err)
		files = append(files, file)
	}
	return files
}

func same(expected, ids []string) {
	slices.Sort(ids)
	if !slices.Equal(expected, ids) {
		log.Fatalf("%v, expected %v", ids, expected)
	}
}

func check(err error) {
	var refused *misfit.GenericOpenAPIError
	if errors.As(err, &refused) {
		log.Fatalf("%v: %s", err, refused.Body())
	}
	if err != nil {
		log.Fatal(err)
	}
}
