import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

/** Sends requests with and without a body, and prints the status of each answer. */
public class Client {
    private static HttpClient client = HttpClient.newHttpClient();
    private static String base;

    public static void main(String[] arguments) throws Exception {
        base = arguments[0];
        String streams = "/v1/users/java/streams";
        String id = send("POST", streams, BodyPublishers.ofString("{\"limit\": 1}")).replaceFirst(".*\"stream_id\":\"([^\"]*)\".*", "$1");
        send("POST", streams, BodyPublishers.ofString("{\"limit\": 1}"));
        send("POST", streams + "/" + id + "/heartbeat", BodyPublishers.noBody());
        send("POST", streams + "/" + id + "/release", BodyPublishers.ofString("{}"));
        // Of unknown length, so in chunks, beside which an upgrade is refused.
        send("POST", streams, chunked("{\"limit\": 1}"));
        client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        send("POST", streams, chunked("{\"limit\": 1}"));
        send("POST", streams, chunked("{\"limit\": 1}"));
    }

    private static BodyPublisher chunked(String body) {
        return BodyPublishers.fromPublisher(BodyPublishers.ofString(body));
    }

    private static String send(String method, String path, BodyPublisher body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(base + path))
            .header("Content-Type", "application/json").method(method, body).build();
        HttpResponse<String> answer = client.send(request, BodyHandlers.ofString());
        System.out.println(answer.statusCode());
        return answer.body();
    }
}
