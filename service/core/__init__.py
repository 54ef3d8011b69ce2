"""The mathematics: functions from arrays to arrays. No file, no request, no transport."""
