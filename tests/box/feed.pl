# Answers each request with the Authorization that came with it; /slow/N after N seconds.
use strict;
use IO::Socket::INET;
$SIG{CHLD} = 'IGNORE';
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8081, Listen => 50, ReuseAddr => 1) or die $!;
while (my $client = $listener->accept) {
    if (fork) { close $client; next }
    my ($path, $token) = ('', '');
    while (my $line = <$client>) {
        $path = $1 if $line =~ /^GET (\S+)/;
        $token = $1 if $line =~ /^authorization: (.*?)\r?\n/i;
        last if $line =~ /^\r?\n/;
    }
    sleep $1 if $path =~ m{^/slow/(\d+)};
    my $body = qq({"v":"$token"});
    my $length = length $body;
    print $client "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$body";
    exit;
}
