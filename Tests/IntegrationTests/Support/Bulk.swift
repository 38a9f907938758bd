// What both ends of Helpers/bulk.py have to say in the end.

import Testing

/// Waits until each has all that the other one has sent, and expects that it is the same.
func expectWhole(_ client: Subprocess, _ origin: Subprocess, within time: Double) throws {
    try client.line(with: "received", within: time)
    try origin.line(with: "received", within: time)
    #expect(try client.end() == 0)
    #expect(try origin.end() == 0)
    let hash = { (process: Subprocess, word: String) in
        process.lines.first { $0.hasPrefix(word + " ") }?.split(separator: " ").last
    }
    #expect(hash(client, "sent") == hash(origin, "received"))
    #expect(hash(origin, "sent") == hash(client, "received"))
    #expect(hash(client, "sent") != hash(origin, "sent"))
}
