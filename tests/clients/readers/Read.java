// Reads a stream of native events with java.net.http, and comes back after a cut. Prints each event: its name and data.
// Argument: the stream's URL.
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

class Read {
    public static void main(String[] arguments) throws InterruptedException {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        HttpClient client = HttpClient.newHttpClient();
        String last = null;
        while (true) {
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[0]));
            if (last != null) {
                request.header("Last-Event-ID", last);
            }
            try (var lines = client.send(request.build(), BodyHandlers.ofLines()).body()) {
                Map<String, String> fields = new HashMap<>();
                for (String line : (Iterable<String>) lines::iterator) {
                    if (!line.isEmpty()) {
                        String[] halves = line.split(": ?", 2);
                        fields.put(halves[0], halves.length > 1 ? halves[1] : "");
                        continue;
                    }
                    if (fields.containsKey("data")) {
                        last = fields.getOrDefault("id", last);
                        out.println(fields.get("event") + " " + fields.get("data"));
                        if (fields.get("event").equals("done") || fields.get("event").equals("error")) {
                            return;
                        }
                    }
                    fields.clear();
                }
            } catch (IOException | UncheckedIOException cut) {
                continue;
            }
        }
    }
}
