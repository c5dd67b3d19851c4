# Reads a stream of native events with Net::HTTP, and comes back after a cut. Prints each event: its name and data.
# Argument: the stream's URL.
require "net/http"

url = URI(ARGV[0])
last = nil
loop do
  request = Net::HTTP::Get.new(url)
  request["Last-Event-ID"] = last if last
  begin
    # Without its own retries, which would read the stream from its start again.
    Net::HTTP.start(url.host, url.port, max_retries: 0) do |http|
      http.request(request) do |response|
        abort("#{response.code} #{response.body}") unless response.code == "200"
        unread = +"".b
        response.read_body do |piece|
          unread << piece.b
          while (block = unread.slice!(/\A.*?\n\n/mn))
            fields = block.force_encoding("UTF-8").lines(chomp: true).to_h { |line| line.split(/: ?/, 2).then { |name, value| [name, value.to_s] } }
            next unless fields["data"]
            last = fields["id"] || last
            puts "#{fields["event"]} #{fields["data"]}"
            exit if %w[done error].include?(fields["event"])
          end
        end
      end
    end
  rescue EOFError, SystemCallError, IOError
    # It was cut.
  end
end
