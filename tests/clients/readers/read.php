<?php
// Reads a stream of native events with PHP's own HTTP, and comes back after a cut. Prints each event: its name and data.
// Argument: the stream's URL.
$last = "";
while (true) {
    $options = ["protocol_version" => 1.1, "header" => ["Connection: close", ...($last ? ["Last-Event-ID: $last"] : [])]];
    $stream = @fopen($argv[1], "r", false, stream_context_create(["http" => $options]));
    if (!$stream) {
        fwrite(STDERR, error_get_last()["message"] . "\n");
        exit(1);
    }
    $fields = [];
    while (($line = fgets($stream)) !== false) {
        if ($line !== "\n") {
            [$field, $value] = explode(":", rtrim($line, "\n"), 2) + [1 => ""];
            $fields[$field] = ltrim($value);
            continue;
        }
        if (isset($fields["data"])) {
            $last = $fields["id"] ?? $last;
            echo $fields["event"], " ", $fields["data"], "\n";
            if (in_array($fields["event"], ["done", "error"])) {
                exit(0);
            }
        }
        $fields = [];
    }
}
