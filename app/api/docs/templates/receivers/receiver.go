package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"
)

type Sender struct{ Name string }

var client = http.Client{Timeout: 2 * time.Second}

// verified calls the handler for a known sender, and otherwise answers the request itself.
func verified(handle func(http.ResponseWriter, *http.Request, Sender)) http.HandlerFunc {
	return func(response http.ResponseWriter, request *http.Request) {
		question, _ := http.NewRequest("GET", "http://127.0.0.1:8000/verify", nil)
		question.Header.Set("Authorization", request.Header.Get("Authorization"))
		answer, err := client.Do(question)
		if err != nil {
			response.Header().Set("Retry-After", "1")
			response.WriteHeader(503)
			return
		}
		defer answer.Body.Close()
		var sender Sender
		if answer.StatusCode == 200 && json.NewDecoder(answer.Body).Decode(&sender) == nil {
			handle(response, request, sender)
			return
		}
		for _, name := range []string{"WWW-Authenticate", "Retry-After"} {
			if value := answer.Header.Get(name); value != "" {
				response.Header().Set(name, value)
			}
		}
		if answer.StatusCode != 401 && answer.StatusCode != 429 {
			answer.StatusCode = 503
		}
		response.WriteHeader(answer.StatusCode)
	}
}

func main() {
	http.HandleFunc("/events", verified(
		func(response http.ResponseWriter, request *http.Request, sender Sender) {
			response.WriteHeader(202)
			json.NewEncoder(response).Encode(map[string]string{"from": sender.Name})
		}))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
