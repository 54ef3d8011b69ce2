module example.com/call

go 1.23

require example.com/clients/misfit v0.0.0

replace example.com/clients/misfit => ./misfit
