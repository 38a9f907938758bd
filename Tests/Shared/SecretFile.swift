// Whether the bytes of a file are still somewhere in memory: for tests in a process of their own.

import Glibc
import Testing

/// A file of random text that is in no memory but by who reads it. It goes with this.
final class SecretFile {
    let path: String
    /// Some of it, from the middle.
    private let mark = UnsafeMutableRawPointer.allocate(byteCount: SecretFile.markBytes, alignment: 1)
    private static let markBytes = 32

    /// Lines as those of a PEM file: so many that what is allocated next does not cover their middle.
    init(_ path: String, lines: Int = 1000) throws {
        self.path = path
        let letters = Array("abcdefghijklmnopqrstuvwxyzABCDEF".utf8)
        let lineBytes = 65
        let text = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: lines * lineBytes)
        defer { text.deallocate() }
        let random = open("/dev/urandom", O_RDONLY | O_CLOEXEC)
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        defer { for raw in [random, file] { close(raw) } }
        try #require(read(random, text.baseAddress!, text.count) == text.count)
        for index in text.indices {
            text[index] = index % lineBytes == lineBytes - 1 ? UInt8(ascii: "\n") : letters[Int(text[index] % 32)]
        }
        try #require(write(file, text.baseAddress!, text.count) == text.count)
        mark.copyMemory(from: text.baseAddress! + text.count / 2, byteCount: Self.markBytes)
        explicit_bzero(text.baseAddress!, text.count)
    }

    deinit {
        unlink(path)
        mark.deallocate()
    }

    /// How many times it is in the memory that this process writes to.
    func copiesInMemory() throws -> Int {
        let areas = try #require(fopen("/proc/self/maps", "re"))
        defer { fclose(areas) }
        var ranges: [(start: UInt, end: UInt)] = []
        var line = [CChar](repeating: 0, count: 4096)
        while fgets(&line, Int32(line.count), areas) != nil {
            let words = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
                .split(separator: " ")
            guard words.count >= 2, words[1].hasPrefix("rw") else { continue }
            let ends = words[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
            if ends.count == 2 { ranges.append((ends[0], ends[1])) }
        }
        var copies = 0
        let first = Int32(mark.load(as: UInt8.self))
        for range in ranges {
            var place = UnsafeRawPointer(bitPattern: range.start)!
            let last = UnsafeRawPointer(bitPattern: range.end)! - Self.markBytes
            while place <= last, let found = memchr(place, first, last - place + 1) {
                if found != mark, memcmp(found, mark, Self.markBytes) == 0 { copies += 1 }
                place = UnsafeRawPointer(found) + 1
            }
        }
        return copies
    }
}
