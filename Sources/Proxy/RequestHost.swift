// The host of an HTTP/1 request, for the verdict cache. Whoever doubts is asked: what another reader could take for
// another host has none here.

import Config
import Glibc

extension Span where Element == UInt8 {
    /// Where the host of the request lies with which these bytes begin, without its port; nil when the head has not come
    /// whole, or does not say beyond doubt: RFC 9112 3.2 wants exactly one Host, and a target in absolute form goes before
    /// it, so only a path or `*` will do.
    func requestHost() -> Range<Int>? {
        guard let lineEnd = lineEnd(from: 0), isRequestLine(0..<lineEnd) else { return nil }
        var host: Range<Int>?
        var start = lineEnd &+ 2
        while let end = self.lineEnd(from: start) {
            if end == start { return host }
            // A line that begins with a space goes on with the one before (RFC 9112 5.2), and has no name either.
            guard let colon = endOfToken(from: start, before: end), colon < end, self[colon] == UInt8(ascii: ":")
            else { return nil }
            if isHost(start..<colon) {
                guard host == nil, let value = hostValue(colon &+ 1..<end) else { return nil }
                host = value
            }
            start = end &+ 2
        }
        return nil
    }

    /// Where the line ends that begins at `start`: at the one carriage return in it, before the newline.
    private func lineEnd(from start: Int) -> Int? {
        let end = Swift.min(count, Limits.requestHeadBytesMax)
        guard start < end else { return nil }
        let offset = unsafe extracting(start..<end).withUnsafeBufferPointer { bytes -> Int? in
            guard let base = bytes.baseAddress, let newline = unsafe memchr(base, 0x0a, bytes.count),
                let back = unsafe memchr(base, 0x0d, bytes.count)
            else { return nil }
            let length = unsafe UnsafeRawPointer(newline) - UnsafeRawPointer(base)
            return unsafe UnsafeRawPointer(back) - UnsafeRawPointer(base) == length &- 1 ? length &- 1 : nil
        }
        return offset.map { start &+ $0 }
    }

    /// A method, a target that is a path, and HTTP/1.0 or 1.1, with one space between.
    private func isRequestLine(_ line: Range<Int>) -> Bool {
        guard let methodEnd = endOfToken(from: line.lowerBound, before: line.upperBound),
            methodEnd &+ 1 < line.upperBound, self[methodEnd] == 0x20
        else { return false }
        let target = methodEnd &+ 1
        var index = target
        while index < line.upperBound, self[index] > 0x20, self[index] != 0x7f { index &+= 1 }
        let isPath = self[target] == UInt8(ascii: "/") || self[target] == UInt8(ascii: "*") && index == target &+ 1
        guard isPath, line.upperBound &- index == 9 else { return false }
        let minor = self[line.upperBound &- 1]
        return matches(" HTTP/1.", at: index) && (minor == UInt8(ascii: "0") || minor == UInt8(ascii: "1"))
    }

    private func matches(_ text: StaticString, at place: Int) -> Bool {
        for offset in 0..<text.utf8CodeUnitCount {
            guard unsafe self[place &+ offset] == text.utf8Start[offset] else { return false }
        }
        return true
    }

    /// Where a name of letters, digits, `-` and `_` ends; nil when there is none.
    private func endOfToken(from start: Int, before end: Int) -> Int? {
        var index = start
        while index < end, isNameByte(self[index]) || self[index] == UInt8(ascii: "_") { index &+= 1 }
        return index > start ? index : nil
    }

    @inline(__always)
    private func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    private func isHost(_ name: Range<Int>) -> Bool {
        guard name.count == 4 else { return false }
        for (offset, letter) in zip(0..<4, "host".utf8) where self[name.lowerBound &+ offset] | 0x20 != letter {
            return false
        }
        return true
    }

    /// The name or address in the value of Host, without the space around it and without the port.
    private func hostValue(_ value: Range<Int>) -> Range<Int>? {
        var (start, end) = (value.lowerBound, value.upperBound)
        while start < end, self[start] == 0x20 || self[start] == 0x09 { start &+= 1 }
        while start < end, self[end &- 1] == 0x20 || self[end &- 1] == 0x09 { end &-= 1 }
        var index = start
        if index < end, self[index] == UInt8(ascii: "[") {
            index &+= 1
            while index < end, isNameByte(self[index]) || self[index] == UInt8(ascii: ":") || isDot(index) {
                index &+= 1
            }
            guard index < end, self[index] == UInt8(ascii: "]") else { return nil }
            index &+= 1
        } else {
            while index < end, isNameByte(self[index]) || self[index] == UInt8(ascii: "_") || isDot(index) {
                index &+= 1
            }
        }
        let host = start..<index
        guard (1...255).contains(host.count) else { return nil }
        guard index < end else { return host }
        guard self[index] == UInt8(ascii: ":") else { return nil }
        for place in index &+ 1..<end where !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self[place]) {
            return nil
        }
        return host
    }

    private func isDot(_ index: Int) -> Bool { self[index] == UInt8(ascii: ".") }
}
